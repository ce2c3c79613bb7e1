import java.io.File;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.generic.GenericRecordBuilder;
import org.apache.avro.message.BinaryMessageEncoder;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteBufferSerializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Sends one mail. Arguments: SCHEMA BOOTSTRAP TOPIC TENANT FROM TO SUBJECT, where SCHEMA is avro/Submission.avsc. */
public class Producer {
    public static void main(String[] args) throws Exception {
        String bootstrap = args[1], topic = args[2], tenant = args[3], from = args[4], to = args[5], subject = args[6];
        Schema schema = new Schema.Parser().parse(new File(args[0]));

        GenericRecord sender = new GenericRecordBuilder(schema.getField("sender").schema())
                .set("address", from).build();
        GenericRecord recipient = new GenericRecordBuilder(schema.getField("recipients").schema().getElementType())
                .set("address", to).build();
        GenericRecord submission = new GenericRecordBuilder(schema)   // fills in the defaults of all other fields
                .set("tenant", tenant)
                .set("submission_id", "java-" + System.nanoTime())    // the same again when you send it again
                .set("sender", sender)
                .set("recipients", List.of(recipient))
                .set("subject", subject)
                .set("text", "Grüße aus Java.\n")
                .build();
        var encoder = new BinaryMessageEncoder<GenericRecord>(new GenericData(), schema);

        Map<String, Object> settings = Map.of("bootstrap.servers", bootstrap, "acks", "all");
        try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new ByteBufferSerializer())) {
            var stored = producer.send(new ProducerRecord<>(topic, tenant, encoder.encode(submission))).get();
            System.out.println(stored.partition() + "@" + stored.offset());
        }
    }
}
