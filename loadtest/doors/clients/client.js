// nodemailer: node client.js HOST TLS_PORT STARTTLS_PORT PEM KEY FROM TO NUMBER
const [host, tlsPort, port, pem, key, from, to, number] = process.argv.slice(2);
const nodemailer = require("nodemailer");
const ca = require("fs").readFileSync(pem);

async function main() {
  for (const secure of [true, false]) {
    const transport = nodemailer.createTransport({
      host: "127.0.0.1", port: Number(secure ? tlsPort : port), secure, requireTLS: !secure, pool: true, maxConnections: 2,
      auth: { user: "apikey", pass: key }, tls: { ca, servername: host },
    });
    for (let n = 0; n < number / 2; n++) {
      await transport.sendMail({
        from: `"Größe" <${from}>`, to, bcc: "hidden@there.test", subject: `nodemailer ${secure} ${n} é`, text: ".\n..\nend", html: "<p>é</p>",
        attachments: [{ filename: "a.bin", content: Buffer.alloc(20000, n) }], headers: { "X-Postroad-Tags": "node" },
      });
    }
    transport.close();
  }
}
main().catch((error) => { console.error(error); process.exit(1); });
