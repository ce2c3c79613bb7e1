// Jakarta Mail: java -cp JARS Client.java HOST STARTTLS_PORT PEM_KEYSTORE KEY FROM TO NUMBER
import jakarta.mail.*;
import jakarta.mail.internet.*;
import java.util.Properties;

public class Client {
    public static void main(String[] given) throws Exception {
        Properties settings = new Properties();
        settings.put("mail.smtp.host", "127.0.0.1");
        settings.put("mail.smtp.port", given[1]);
        settings.put("mail.smtp.auth", "true");
        settings.put("mail.smtp.starttls.enable", "true");
        settings.put("mail.smtp.starttls.required", "true");
        settings.put("mail.smtp.ssl.checkserveridentity", "false"); // the address is that of loopback; the certificate is checked
        settings.put("mail.smtp.timeout", "20000");
        settings.put("mail.mime.allowutf8", "true");
        System.setProperty("javax.net.ssl.trustStore", given[2]);
        System.setProperty("javax.net.ssl.trustStorePassword", "postroad");
        Session session = Session.getInstance(settings, new Authenticator() {
            protected PasswordAuthentication getPasswordAuthentication() {
                return new PasswordAuthentication("apikey", given[3]);
            }
        });
        try (Transport transport = session.getTransport("smtp")) {
            transport.connect();
            for (int n = 0; n < Integer.parseInt(given[6]); n++) {
                MimeMessage message = new MimeMessage(session);
                message.setFrom(new InternetAddress(given[4], "Größe", "UTF-8"));
                message.setRecipients(Message.RecipientType.TO, given[5]);
                message.setRecipients(Message.RecipientType.BCC, "hidden@there.test");
                message.setSubject("jakarta " + n + " é", "UTF-8");
                message.setText(".\n..\nend é\n", "UTF-8");
                message.saveChanges();
                transport.sendMessage(message, message.getAllRecipients());
            }
        }
    }
}
