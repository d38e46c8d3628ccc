//! The contract only grows: released subjects and field numbers never change.
//!
//! `contract.txt` is what was released. The test fails if the code lacks one of its lines, and if
//! the code has a line that the file lacks: adding it by hand is the moment to think about it.
//! `golden/` has the bytes of every released event.

use std::collections::BTreeSet;

use headwater_event::schema::Kind;
use headwater_event::{Envelope, Event, subject_of};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet};
use shop_events::{
    DESCRIPTORS, OrderPlaced, ProductCreated, ProductUpdated, SCHEMA, UserErased, UserRegistered,
};

const RELEASED: &str = include_str!("contract.txt");

#[test]
fn subjects_and_field_numbers_only_grow() {
    let now = contract(SCHEMA.events, &files());
    expect_released(&now).unwrap_or_else(|difference| panic!("{difference}"));
}

#[test]
fn the_bytes_of_every_released_event_decode() {
    headwater_testkit::golden("tests/golden", &SCHEMA, shop_events::key);
}

/// Compares the contract of today with what was released.
fn expect_released(now: &[String]) -> Result<(), String> {
    let released: Vec<&str> = RELEASED.lines().collect();
    let now: Vec<&str> = now.iter().map(String::as_str).collect();
    let missing = |of: &[&str], from: &[&str], what: &str| {
        let lines: Vec<&str> = of.iter().filter(|it| !from.contains(it)).copied().collect();
        match &lines[..] {
            [] => String::new(),
            lines => format!("{what}:\n  {}\n", lines.join("\n  ")),
        }
    };
    let gone = missing(
        &released,
        &now,
        "released, and changed or removed: put it back, and make a new version instead",
    );
    let new = missing(
        &now,
        &released,
        "new: add to tests/contract.txt, where it stays for ever",
    );
    let difference = gone + &new;
    if difference.is_empty() {
        Ok(())
    } else {
        Err(difference)
    }
}

/// `docs/changing-an-event.md` shows what the gate says of each kind of change.
#[test]
fn the_how_to_shows_what_the_gate_says() {
    const ORDERS: &str = "orders/v1/events.proto";
    let updated = |kind: &&Kind| kind.subject != "products.v1.updated";
    let without_updated: Vec<Kind> = SCHEMA.events.iter().filter(updated).copied().collect();
    let v2 = Kind {
        subject: "orders.v2.placed",
        message: "shop.orders.v2.OrderPlaced",
        key: "buyer_id",
    };
    let with_v2 = [SCHEMA.events, &[v2]].concat();

    let mut added = files();
    let field = FieldDescriptorProto {
        name: Some("channel".to_owned()),
        number: Some(5),
        label: Some(Label::Optional.into()),
        r#type: Some(Type::String.into()),
        ..FieldDescriptorProto::default()
    };
    message(&mut added, ORDERS, "OrderPlaced").field.push(field);
    let mut renamed = files();
    message(&mut renamed, ORDERS, "OrderPlaced").field[1].name = Some("buyer_id".to_owned());
    let mut split = files();
    let products = file(&mut split, "products/v1/events.proto");
    products
        .message_type
        .retain(|it| it.name() != "ProductUpdated");
    let mut versioned = files();
    let mut newer = file(&mut versioned, ORDERS).clone();
    newer.package = Some("shop.orders.v2".to_owned());
    newer.message_type[0].field[1].name = Some("buyer_id".to_owned());
    versioned.push(newer);
    let mut retired = files();
    let options = &mut message(&mut retired, ORDERS, "OrderPlaced").options;
    options.get_or_insert_default().deprecated = Some(true);

    let says = |events: &[Kind], files: &[_]| expect_released(&contract(events, files));
    assert_eq!(says(SCHEMA.events, &retired), Ok(()));
    let empty = tempfile::tempdir().expect("a folder");
    let golden = std::panic::catch_unwind(|| {
        headwater_testkit::golden(empty.path(), &SCHEMA, shop_events::key);
    });
    let golden = *golden
        .expect_err("no bytes")
        .downcast::<String>()
        .expect("a text");
    let said = [
        says(SCHEMA.events, &added).expect_err("a field"),
        says(SCHEMA.events, &renamed).expect_err("a field"),
        says(&without_updated, &split).expect_err("an event"),
        says(&with_v2, &versioned).expect_err("a version"),
        golden.replace("orders.v1", "orders.v2"),
        golden.replace("no golden bytes", "a field without golden bytes"),
    ];
    let how_to = include_str!("../../../../docs/changing-an-event.md");
    let shown: Vec<&str> = how_to.split("```console\n").skip(1).collect();
    assert_eq!(shown.len(), 6);
    for block in shown {
        let block = block.split("```").next().expect("a block");
        let is_said = said.iter().any(|said| said.contains(block.trim_end()));
        assert!(is_said, "{block}\nis not in\n{}", said.join("\n"));
    }
}

fn file<'a>(files: &'a mut [FileDescriptorProto], name: &str) -> &'a mut FileDescriptorProto {
    let mut files = files.iter_mut();
    files.find(|file| file.name() == name).expect("the file")
}

fn message<'a>(
    files: &'a mut [FileDescriptorProto],
    of: &str,
    name: &str,
) -> &'a mut DescriptorProto {
    let mut messages = file(files, of).message_type.iter_mut();
    messages.find(|it| it.name() == name).expect("the message")
}

#[test]
fn every_subject_has_a_message_and_every_message_a_subject_or_a_place_in_another() {
    let files = files();
    let described: BTreeSet<String> = messages(&files).map(|(name, _)| name).collect();
    let events = SCHEMA.events.iter().map(|kind| kind.message);
    let inquiries = SCHEMA
        .questions
        .iter()
        .flat_map(|question| [question.asked, question.answered]);
    let mut listed: BTreeSet<String> = events.chain(inquiries).map(str::to_owned).collect();
    let unlisted: Vec<_> = described.difference(&listed).cloned().collect();
    listed.extend(unlisted.into_iter().filter(|name| is_part(&files, name)));
    assert_eq!(described, listed);
}

#[test]
fn no_stream_keeps_questions() {
    for question in SCHEMA.questions {
        let subject = question.subject;
        let first = subject.split('.').next();
        let is_captured = SCHEMA
            .events
            .iter()
            .any(|kind| kind.subject.split('.').next() == first);
        assert!(!is_captured, "a stream captures {subject}");
    }
}

#[test]
fn the_key_in_the_schema_is_the_key_of_the_event() {
    fn expect<E: Event>(event: &E, key: &str) {
        let kind = SCHEMA.events.iter().find(|kind| kind.subject == E::SUBJECT);
        let kind = kind.expect("the event is in the schema");
        assert_eq!(event.key(), key, "{}", kind.subject);
        assert_eq!(kind.key, key, "{}", kind.subject);
        let envelope = Envelope {
            source: "shop".into(),
            subject: subject_of(event).into(),
            id: None,
            sequence: None,
            payload: event.encode_to_vec().into(),
            traceparent: None,
        };
        assert_eq!(shop_events::key(&envelope).as_deref(), Some(key));
    }
    let user_id = || "user_id".to_owned();
    let product_id = || "product_id".to_owned();
    // The value of each event's key field is the name of the field.
    expect(
        &UserRegistered {
            user_id: user_id(),
            ..UserRegistered::default()
        },
        "user_id",
    );
    expect(&UserErased { user_id: user_id() }, "user_id");
    expect(
        &ProductCreated {
            product_id: product_id(),
            ..ProductCreated::default()
        },
        "product_id",
    );
    expect(
        &ProductUpdated {
            product_id: product_id(),
            ..ProductUpdated::default()
        },
        "product_id",
    );
    expect(
        &OrderPlaced {
            user_id: user_id(),
            ..OrderPlaced::default()
        },
        "user_id",
    );
}

#[test]
fn each_source_describes_its_own_events_and_questions() {
    for (source, events, questions) in [("users", 2, 3), ("products", 2, 1), ("orders", 1, 1)] {
        let described = SCHEMA.of(source).expect("a complete schema");
        assert_eq!(described.events.len(), events, "{source}");
        assert_eq!(described.questions.len(), questions, "{source}");
        let set = described.descriptors().expect("base64");
        let set = FileDescriptorSet::decode(&*set).expect("descriptors");
        let names = set.file.iter().map(FileDescriptorProto::name);
        let files: Vec<&str> = names.collect();
        let own = files.iter().filter(|file| file.starts_with(source)).count();
        assert_eq!(own, 2, "{source}: {files:?}");
        let others = files.len() - own;
        let imported = usize::from(files.contains(&"google/protobuf/timestamp.proto"));
        assert_eq!(others, imported, "{source}: {files:?}");
    }
}

/// Whether a message is a field of another.
fn is_part(files: &[FileDescriptorProto], name: &str) -> bool {
    messages(files).any(|(_, message)| {
        let mut fields = message.field.iter();
        fields.any(|field| field.type_name() == format!(".{name}"))
    })
}

/// Every subject, key, question and field, one per line.
fn contract(events: &[Kind], files: &[FileDescriptorProto]) -> Vec<String> {
    let subjects = events
        .iter()
        .map(|kind| format!("subject {} {}", kind.subject, kind.message));
    let fields = messages(files).flat_map(|(name, message)| {
        message.field.iter().map(move |field| {
            let kind = match field.type_name() {
                "" => field.r#type().as_str_name(),
                named => named,
            };
            format!(
                "field {name}.{} = {} {} {kind}",
                field.name(),
                field.number(),
                field.label().as_str_name()
            )
        })
    });
    let inquiries = SCHEMA.questions.iter().map(|question| {
        let (asked, answered) = (question.asked, question.answered);
        format!("inquiry {} {asked} {answered}", question.subject)
    });
    let keys = events
        .iter()
        .map(|kind| format!("key {} {}", kind.subject, kind.key));
    subjects
        .chain(keys)
        .chain(inquiries)
        .chain(fields)
        .collect()
}

/// The files of the shop.
fn files() -> Vec<FileDescriptorProto> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("decode the output of build.rs");
    let files = set.file.into_iter();
    files
        .filter(|file| file.package().starts_with("shop."))
        .collect()
}

fn messages(files: &[FileDescriptorProto]) -> impl Iterator<Item = (String, &DescriptorProto)> {
    files.iter().flat_map(|file| {
        let messages = file.message_type.iter();
        messages.map(|message| (format!("{}.{}", file.package(), message.name()), message))
    })
}
