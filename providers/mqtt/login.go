package mqtt

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
)

// errLogin marks a file of a Login that can not be used.
var errLogin = errors.New("not usable")

// maxSecretFile is the longest file of a Login that is read.
const maxSecretFile = 1 << 20

// password reads the password, "" if there is none.
func (l *Login) password() (string, error) {
	if l.PasswordFile == "" {
		return "", nil
	}
	b, err := readSecret(l.PasswordFile)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 || len(b) > 65535 {
		return "", fmt.Errorf("password file %s: holds %d bytes, want 1 to 65535: %w", l.PasswordFile, len(b), errLogin)
	}
	return string(b), nil
}

// tls returns how to speak TLS with the broker at u.
func (l *Login) tls(u *url.URL) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}
	if l.CA != "" {
		pem, err := readSecret(l.CA)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca file %s: no certificate in PEM: %w", l.CA, errLogin)
		}
	}
	if l.Cert != "" {
		cert, err := readSecret(l.Cert)
		if err != nil {
			return nil, fmt.Errorf("cert: %w", err)
		}
		key, err := readSecret(l.Key)
		if err != nil {
			return nil, fmt.Errorf("key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("cert %s with key %s: %w: %w", l.Cert, l.Key, errLogin, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func readSecret(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxSecretFile {
		return nil, fmt.Errorf("%s: want a file of at most %d bytes: %w", name, maxSecretFile, errLogin)
	}
	return os.ReadFile(name)
}
