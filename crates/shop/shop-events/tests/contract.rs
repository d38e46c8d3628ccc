//! The contract only grows: released subjects and field numbers never change.
//!
//! `contract.txt` is what was released. The test fails if the code lacks one of its lines, and if
//! the code has a line that the file lacks: adding it by hand is the moment to think about it.

use std::collections::BTreeSet;

use headwater_event::{Envelope, Event, subject_of};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use shop_events::{
    DESCRIPTORS, OrderPlaced, ProductCreated, ProductUpdated, SCHEMA, UserErased, UserRegistered,
};

const RELEASED: &str = include_str!("contract.txt");

#[test]
fn subjects_and_field_numbers_only_grow() {
    let now = contract();
    let gone: Vec<&str> = RELEASED
        .lines()
        .filter(|line| !now.iter().any(|has| has == line))
        .collect();
    assert!(
        gone.is_empty(),
        "released, but changed or removed: {gone:#?}"
    );
    let new: Vec<&String> = now
        .iter()
        .filter(|line| !RELEASED.lines().any(|released| released == *line))
        .collect();
    assert!(
        new.is_empty(),
        "add these lines to tests/contract.txt: {new:#?}"
    );
}

#[test]
fn every_subject_has_a_message_and_every_message_a_subject_or_a_place_in_another() {
    let described: BTreeSet<String> = messages().map(|(name, _)| name).collect();
    let events = SCHEMA.events.iter().map(|kind| kind.message);
    let inquiries = SCHEMA
        .questions
        .iter()
        .flat_map(|question| [question.asked, question.answered]);
    let mut listed: BTreeSet<String> = events.chain(inquiries).map(str::to_owned).collect();
    let unlisted: Vec<_> = described.difference(&listed).cloned().collect();
    listed.extend(unlisted.into_iter().filter(|name| is_part(name)));
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
    for (source, events, questions) in [("users", 2, 1), ("products", 2, 1), ("orders", 1, 1)] {
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
fn is_part(name: &str) -> bool {
    messages().any(|(_, message)| {
        let mut fields = message.field.iter();
        fields.any(|field| field.type_name() == format!(".{name}"))
    })
}

/// Every subject, key, question and field, one per line.
fn contract() -> Vec<String> {
    let subjects = SCHEMA
        .events
        .iter()
        .map(|kind| format!("subject {} {}", kind.subject, kind.message));
    let fields = messages().flat_map(|(name, message)| {
        message.field.into_iter().map(move |field| {
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
    let keys = SCHEMA
        .events
        .iter()
        .map(|kind| format!("key {} {}", kind.subject, kind.key));
    subjects
        .chain(keys)
        .chain(inquiries)
        .chain(fields)
        .collect()
}

fn messages() -> impl Iterator<Item = (String, prost_types::DescriptorProto)> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("decode the output of build.rs");
    set.file
        .into_iter()
        .filter(|file| file.package().starts_with("shop."))
        .flat_map(|file| {
            let package = file.package().to_owned();
            file.message_type
                .into_iter()
                .map(move |message| (format!("{package}.{}", message.name()), message))
        })
}
