// Go's net/smtp: go run client.go HOST STARTTLS_PORT PEM KEY FROM TO NUMBER
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/smtp"
	"os"
	"strconv"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	host, port, pem, key, from, to := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5], os.Args[6]
	number, err := strconv.Atoi(os.Args[7])
	must(err)
	raw, err := os.ReadFile(pem)
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(raw)
	client, err := smtp.Dial("127.0.0.1:" + port)
	must(err)
	must(client.StartTLS(&tls.Config{RootCAs: roots, ServerName: host}))
	must(client.Auth(smtp.PlainAuth("", "apikey", key, "127.0.0.1")))
	for n := 0; n < number; n++ {
		must(client.Mail(from))
		must(client.Rcpt(to))
		writer, err := client.Data()
		must(err)
		fmt.Fprintf(writer, "From: %s\r\nTo: %s\r\nSubject: go %d\r\n\r\n.a line with a dot\r\n.\r\nend\r\n", from, to, n)
		must(writer.Close())
	}
	must(client.Quit())
}
