// Package providers holds the tests of providers that are programs of their own: the
// examples, each checked by the suite of edged provider test, against real devices and files.
package providers
