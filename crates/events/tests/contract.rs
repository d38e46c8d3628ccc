//! The contract only grows: subjects and field numbers that were once released stay as they are.
//!
//! `contract.txt` is what was released. A line of it that the code no longer has fails the test;
//! a new one has to be added by hand, which is the moment to think about it.

use events::{CATALOGUE, DESCRIPTORS};
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
fn every_subject_has_a_message_and_every_message_a_subject() {
    let mut described: Vec<String> = messages().map(|(name, _)| name).collect();
    let mut listed: Vec<&str> = CATALOGUE.iter().map(|(_, message)| *message).collect();
    described.sort();
    listed.sort_unstable();
    assert_eq!(described, listed);
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
    subjects.chain(fields).collect()
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
