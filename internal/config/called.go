package config

import "slices"

// CalledBy returns the contracts by which the manifest has an actor called, with messages or requests, sorted.
func (a *App) CalledBy(actor string) (contracts []string) {
	add := func(called bool, who, contract string) {
		if called && who == actor && !slices.Contains(contracts, contract) {
			contracts = append(contracts, contract)
		}
	}
	pushed := func(s Source, contract string) { add(len(s.Filters) > 0 && !s.Pull, s.Actor, contract) }
	for _, s := range a.MQTT {
		pushed(s.Source, ContractPubSub)
	}
	for _, s := range a.NATS {
		pushed(s.Source, ContractPubSub)
	}
	for _, s := range a.Local {
		pushed(s.Source, ContractPubSub)
	}
	for _, s := range a.Messaging {
		pushed(s.Source, ContractMessaging)
	}
	for _, s := range a.Subscriptions {
		add(!s.Pull, s.Actor, ContractPubSub)
	}
	for _, h := range a.HTTP {
		add(true, h.Actor, ContractHTTPServer)
	}
	slices.Sort(contracts)
	return contracts
}
