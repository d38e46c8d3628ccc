//! Golden bytes: every version of an event that was ever released decodes for ever.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use headwater::{Envelope, EventId, Schema, kind_of, partition};
use prost_reflect::prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    SerializeOptions, Value,
};
use serde_json::json;

/// The environment variable that has the missing files written.
const WRITE: &str = "HEADWATER_GOLDEN";

/// How deep messages in messages are filled.
const DEPTH: usize = 4;

/// Field names as in the `.proto` file.
const AS_WRITTEN: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// Checks the golden files in `folder` against the events of today: the bytes of every event that
/// was ever released still decode to the same fields, and `key` (the generated function) still reads
/// its key, through the upcasts. Every event of `schema`, with all of its fields, has such a file.
///
/// With `HEADWATER_GOLDEN=new` in the environment, it writes the files that are missing: of a new
/// event, a new version, or an event with a new field. It never writes to a file that exists: commit
/// them, and never change them.
///
/// ```no_run
/// # mod events {
/// #     use headwater::{Envelope, Schema};
/// #     pub const SCHEMA: Schema = Schema { events: &[], questions: &[], descriptors: &[] };
/// #     pub fn key(_: &Envelope) -> Option<String> { None }
/// # }
/// # fn main() {
/// // In a test, with the module of `headwater::include_events!()`:
/// headwater_testkit::golden("tests/golden", &events::SCHEMA, events::key);
/// # }
/// ```
///
/// # Panics
/// With all mistakes, and what to do about them.
pub fn golden(
    folder: impl AsRef<Path>,
    schema: &Schema,
    key: impl Fn(&Envelope) -> Option<String>,
) {
    let is_new = std::env::var(WRITE).is_ok_and(|value| value == "new");
    if let Err(mistakes) = check(folder.as_ref(), schema, &key, is_new) {
        panic!("{}", mistakes.join("\n"));
    }
}

/// An event of a golden file.
struct Golden {
    subject: String,
    event: serde_json::Value,
}

fn check(
    folder: &Path,
    schema: &Schema,
    key: &impl Fn(&Envelope) -> Option<String>,
    is_new: bool,
) -> Result<(), Vec<String>> {
    let pool =
        DescriptorPool::decode(schema.descriptors).map_err(|error| vec![error.to_string()])?;
    let mut mistakes = Vec::new();
    let mut found = Vec::new();
    for file in files(folder) {
        match read(&folder.join(&file), &pool, key) {
            Ok(golden) => found.push(golden),
            Err(mistake) => mistakes.push(format!("{file}: {mistake}")),
        }
    }
    for kind in schema.events {
        let Some(message) = pool.get_message_by_name(kind.message) else {
            mistakes.push(format!("there is no message {}", kind.message));
            continue;
        };
        let sample = sample(&message, DEPTH);
        let event = json(&sample);
        let of_kind = |golden: &&Golden| kind_of(&golden.subject) == kind.subject;
        let before = found.iter().filter(of_kind).count();
        if found
            .iter()
            .filter(of_kind)
            .any(|golden| golden.event == event)
        {
            continue;
        }
        if !is_new {
            let what = if before == 0 {
                "no golden bytes"
            } else {
                "a field without golden bytes"
            };
            mistakes.push(format!(
                "{} has {what}: run this test with {WRITE}=new, and commit the new file",
                kind.subject
            ));
            continue;
        }
        let number = if before == 0 {
            String::new()
        } else {
            format!(".{}", before + 1)
        };
        let file = folder.join(format!("{}{number}.json", kind.subject));
        if let Err(error) = write(&file, kind.subject, kind.message, kind.key, &sample) {
            mistakes.push(format!("{}: {error}", file.display()));
        }
    }
    if mistakes.is_empty() {
        Ok(())
    } else {
        Err(mistakes)
    }
}

/// The names of the golden files, sorted.
fn files(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter(|name| Path::new(name).extension().is_some_and(|it| it == "json"))
        .collect()
}

/// Reads a file and checks it: its bytes decode to its fields, and it has its key.
fn read(
    file: &Path,
    pool: &DescriptorPool,
    key: &impl Fn(&Envelope) -> Option<String>,
) -> Result<Golden, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let golden: serde_json::Value =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let text = |field: &str| {
        let text = golden[field].as_str().map(str::to_owned);
        text.ok_or_else(|| format!("has no `{field}`: a golden file is never changed"))
    };
    let (subject, message) = (text("subject")?, text("message")?);
    let payload = BASE64_STANDARD.decode(text("payload")?);
    let payload = payload.map_err(|error| format!("the payload is not base64: {error}"))?;
    let descriptor = pool.get_message_by_name(&message).ok_or_else(|| {
        format!("there is no message {message} any more: released events need it, put it back")
    })?;
    let decoded = DynamicMessage::decode(descriptor, &*payload)
        .map_err(|error| format!("the payload of {message} does not decode any more: {error}"))?;
    let (now, then) = (json(&decoded), &golden["event"]);
    if now != *then {
        return Err(format!(
            "{message} decodes to {now}, but was {then}: a released field was changed, put it back \
             and make a new version"
        ));
    }
    let id: EventId = text("id")?
        .parse()
        .map_err(|_| "the id does not parse".to_owned())?;
    let envelope = Envelope {
        source: id.source.clone(),
        subject: subject.as_str().into(),
        id: Some(id),
        sequence: Some(1),
        payload: payload.into(),
        traceparent: None,
    };
    let wanted = text("key")?;
    match key(&envelope) {
        Some(key) if key == wanted && partition(&key).to_string() == envelope.partition() => {
            Ok(Golden {
                subject,
                event: then.clone(),
            })
        }
        key => Err(format!(
            "the key of {subject} was `{wanted}` and is {key:?}: it must stay in all versions"
        )),
    }
}

/// Writes a new file.
fn write(
    file: &Path,
    subject: &str,
    message: &str,
    key: &str,
    sample: &DynamicMessage,
) -> std::io::Result<()> {
    let source = subject.split('.').next().unwrap_or_default();
    let value = sample.get_field_by_name(key);
    let key = value
        .as_ref()
        .and_then(|key| key.as_str())
        .unwrap_or_default();
    let golden = json!({
        "subject": format!("{subject}.{}", partition(key)),
        "id": format!("{source}.golden.1"),
        "message": message,
        "key": key,
        "payload": BASE64_STANDARD.encode(sample.encode_to_vec()),
        "event": json(sample),
    });
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut file = std::fs::File::create_new(file)?;
    serde_json::to_writer_pretty(&mut file, &golden)?;
    std::io::Write::write_all(&mut file, b"\n")
}

fn json(message: &DynamicMessage) -> serde_json::Value {
    let json = message.serialize_with_options(serde_json::value::Serializer, &AS_WRITTEN);
    json.unwrap_or_else(|error| json!(format!("not JSON: {error}")))
}

/// A message with a value in each field, the same for each call.
fn sample(message: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut sample = DynamicMessage::new(message.clone());
    for field in message.fields() {
        if let Some(value) = value(&field, depth) {
            sample.set_field(&field, value);
        }
    }
    sample
}

fn value(field: &FieldDescriptor, depth: usize) -> Option<Value> {
    if let Kind::Message(entry) = field.kind()
        && field.is_map()
    {
        let key = match single(&entry.map_entry_key_field(), depth)? {
            Value::Bool(key) => MapKey::Bool(key),
            Value::I32(key) => MapKey::I32(key),
            Value::I64(key) => MapKey::I64(key),
            Value::U32(key) => MapKey::U32(key),
            Value::U64(key) => MapKey::U64(key),
            Value::String(key) => MapKey::String(key),
            _ => return None,
        };
        let value = single(&entry.map_entry_value_field(), depth)?;
        return Some(Value::Map([(key, value)].into()));
    }
    let single = single(field, depth)?;
    Some(if field.is_list() {
        Value::List(vec![single])
    } else {
        single
    })
}

/// A value of the field's type, which depends on its name and number only.
fn single(field: &FieldDescriptor, depth: usize) -> Option<Value> {
    let number = field.number();
    let signed = i32::try_from(number).unwrap_or(1);
    Some(match field.kind() {
        Kind::Bool => Value::Bool(true),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(signed),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(signed.into()),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number.into()),
        Kind::Float => Value::F32(0.5),
        Kind::Double => Value::F64(0.5),
        Kind::String => Value::String(field.name().to_owned()),
        Kind::Bytes => Value::Bytes(field.name().to_owned().into()),
        Kind::Enum(of) => {
            let mut numbers = of.values().map(|value| value.number());
            Value::EnumNumber(numbers.find(|number| *number != 0).unwrap_or(0))
        }
        Kind::Message(of) if depth > 0 && of.full_name() != "google.protobuf.Any" => {
            Value::Message(sample(&of, depth - 1))
        }
        Kind::Message(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use headwater::schema;
    use prost_types::field_descriptor_proto::{Label, Type};
    use prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    };

    use super::*;

    const KIND: schema::Kind = schema::Kind {
        subject: "orders.v1.placed",
        message: "shop.orders.v1.OrderPlaced",
        key: "user_id",
    };

    /// A schema in which the event has these fields, numbered from 1.
    fn schema(fields: &[(&str, Type)]) -> Schema {
        let field = |(number, (name, kind)): (i32, &(&str, Type))| FieldDescriptorProto {
            name: Some((*name).to_owned()),
            number: Some(number),
            label: Some(Label::Optional.into()),
            r#type: Some((*kind).into()),
            ..FieldDescriptorProto::default()
        };
        let message = DescriptorProto {
            name: Some("OrderPlaced".to_owned()),
            field: (1..).zip(fields).map(field).collect(),
            ..DescriptorProto::default()
        };
        let file = FileDescriptorProto {
            name: Some("events.proto".to_owned()),
            package: Some("shop.orders.v1".to_owned()),
            message_type: vec![message],
            syntax: Some("proto3".to_owned()),
            ..FileDescriptorProto::default()
        };
        let set = FileDescriptorSet { file: vec![file] };
        Schema {
            events: &[KIND],
            questions: &[],
            descriptors: prost_reflect::prost::Message::encode_to_vec(&set).leak(),
        }
    }

    const RELEASED: [(&str, Type); 2] = [("user_id", Type::String), ("count", Type::Int32)];

    fn key(event: &Envelope) -> Option<String> {
        (event.kind() == KIND.subject).then(|| KIND.key.to_owned())
    }

    /// A folder with the golden file of `RELEASED`.
    fn released() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        check(folder.path(), &schema(&RELEASED), &key, true).expect("written");
        folder
    }

    fn mistakes(folder: &Path, fields: &[(&str, Type)]) -> String {
        check(folder, &schema(fields), &key, false)
            .expect_err("a mistake")
            .join("\n")
    }

    #[test]
    fn an_event_without_golden_bytes_is_a_mistake_and_so_is_a_field() {
        let folder = tempfile::tempdir().expect("a folder");
        let missing = "orders.v1.placed has no golden bytes: run this test with HEADWATER_GOLDEN=new, \
                       and commit the new file";
        assert_eq!(mistakes(folder.path(), &RELEASED), missing);
        let folder = released();
        assert!(check(folder.path(), &schema(&RELEASED), &key, false).is_ok());
        let more = [RELEASED[0], RELEASED[1], ("note", Type::String)];
        let missing = mistakes(folder.path(), &more);
        assert!(
            missing.contains("a field without golden bytes"),
            "{missing}"
        );
    }

    #[test]
    fn a_new_field_gets_a_file_of_its_own_and_what_was_released_is_never_written_again() {
        let folder = released();
        let first = folder.path().join("orders.v1.placed.json");
        let before = std::fs::read(&first).expect("the first file");
        let more = [RELEASED[0], RELEASED[1], ("note", Type::String)];
        check(folder.path(), &schema(&more), &key, true).expect("written");
        let expected = ["orders.v1.placed.2.json", "orders.v1.placed.json"];
        assert_eq!(
            files(folder.path()).into_iter().collect::<Vec<_>>(),
            expected
        );
        assert_eq!(std::fs::read(&first).expect("the first file"), before);
        // A file that is wrong stays as it is, and is reported.
        std::fs::write(&first, "{}").expect("spoil it");
        let spoiled = check(folder.path(), &schema(&more), &key, true).expect_err("a mistake");
        assert!(
            spoiled[0].contains("a golden file is never changed"),
            "{spoiled:?}"
        );
        assert_eq!(std::fs::read(&first).expect("the first file"), b"{}");
    }

    #[test]
    fn a_released_field_that_was_changed_is_a_mistake() {
        let folder = released();
        for changed in [
            [("buyer_id", Type::String), RELEASED[1]],
            [RELEASED[0], ("count", Type::String)],
            [RELEASED[0], ("count", Type::Sint32)],
        ] {
            let mistakes = mistakes(folder.path(), &changed);
            assert!(mistakes.contains("orders.v1.placed.json: "), "{mistakes}");
        }
        assert!(mistakes(folder.path(), &RELEASED[..1]).contains("a released field was changed"));
    }

    #[test]
    fn a_key_that_an_upcast_changes_is_a_mistake() {
        let folder = released();
        let other = |_: &Envelope| Some("another".to_owned());
        let mistakes = check(folder.path(), &schema(&RELEASED), &other, false).expect_err("a key");
        let expected = "orders.v1.placed.json: the key of orders.v1.placed.60 was `user_id` and is \
                        Some(\"another\"): it must stay in all versions";
        assert_eq!(
            mistakes[0].replace(char::is_numeric, ""),
            expected.replace(char::is_numeric, "")
        );
    }
}
