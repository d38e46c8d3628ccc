//! The contract only grows: subjects and field numbers that were once released stay as they are.
//!
//! `contract.txt` is what was released. A line of it that the code no longer has fails the test;
//! a new one has to be added by hand, which is the moment to think about it.

use std::collections::BTreeSet;

use events::{CATALOGUE, DESCRIPTORS, inquiry};
use prost::Message as _;
use prost_types::FileDescriptorSet;

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
        "released, but changed or taken away: {gone:#?}"
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
    let events = CATALOGUE.iter().map(|(_, event)| *event);
    let inquiries = inquiry::CATALOGUE
        .iter()
        .flat_map(|(_, question, answer)| [*question, *answer]);
    let mut listed: BTreeSet<String> = events.chain(inquiries).map(str::to_owned).collect();
    let unlisted: Vec<_> = described.difference(&listed).cloned().collect();
    listed.extend(unlisted.into_iter().filter(|name| is_part(name)));
    assert_eq!(described, listed);
}

#[test]
fn no_stream_keeps_questions() {
    for (subject, _, _) in inquiry::CATALOGUE {
        let first = subject.split('.').next();
        let is_captured = CATALOGUE
            .iter()
            .any(|(event, _)| event.split('.').next() == first);
        assert!(!is_captured, "{subject} lies under a stream's subjects");
    }
}

/// Whether a message is a field of another.
fn is_part(name: &str) -> bool {
    messages().any(|(_, message)| {
        let mut fields = message.field.iter();
        fields.any(|field| field.type_name() == format!(".{name}"))
    })
}

/// Every subject and every field, a line each.
fn contract() -> Vec<String> {
    let subjects = CATALOGUE
        .iter()
        .map(|(subject, message)| format!("subject {subject} {message}"));
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
    let inquiries = inquiry::CATALOGUE
        .iter()
        .map(|(subject, question, answer)| format!("inquiry {subject} {question} {answer}"));
    subjects.chain(inquiries).chain(fields).collect()
}

fn messages() -> impl Iterator<Item = (String, prost_types::DescriptorProto)> {
    let set = FileDescriptorSet::decode(DESCRIPTORS).expect("what build.rs wrote");
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
