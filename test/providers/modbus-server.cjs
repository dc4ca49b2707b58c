// A Modbus/TCP device: 10 holding registers and 10 coils that can be written, input
// register n with the value 1000+n, discrete input n set where n is odd. It prints its
// port, and ends with its standard input.
const ServerTCP = require("./node_modules/modbus-serial/servers/servertcp.js");

const registers = new Uint16Array(10);
const coils = new Array(10).fill(false);
const illegal = () => Object.assign(new Error("no such address"), { modbusErrorCode: 2 });
const known = (address) => {
  if (address >= 10) throw illegal();
  return address;
};

const device = {
  getHoldingRegister: async (address) => registers[known(address)],
  setRegister: async (address, value) => void (registers[known(address)] = value),
  getInputRegister: async (address) => 1000 + known(address),
  getCoil: async (address) => coils[known(address)],
  setCoil: async (address, value) => void (coils[known(address)] = value),
  getDiscreteInput: async (address) => known(address) % 2 === 1,
};

// The library takes port 0 for 502, so a free one is looked for first.
const free = require("node:net").createServer().listen(0, "127.0.0.1", () => {
  const { port } = free.address();
  free.close(() => {
    const server = new ServerTCP(device, { host: "127.0.0.1", port, unitID: 1 });
    server.on("initialized", () => console.log(port));
    server.on("serverError", (err) => { throw err; });
  });
});
process.stdin.resume().on("end", () => process.exit(0));
