// Package e2e proves whole boxes: edged as a process between real parts, a NATS
// server with JetStream as hub, Mosquitto or the box's own listener for sensors,
// and a line to the hub that can be cut. It holds tests only, and they use what a
// user has: the command line, the device file, MQTT and NATS.
//
// What happens at random comes from one seed, which a failing test prints;
// EDGED_SEED gives it.
package e2e
