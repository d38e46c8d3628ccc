//! A schema as a set of lines, so that two schemas can be compared.

use std::collections::BTreeSet;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

use crate::described::Described;
use crate::error::SchemaError;

/// Keeps only the files of `messages` and their imports, and drops the comments. Tools read the
/// entry for each event that they show, so it should be small.
pub(crate) fn prune(set: &mut FileDescriptorSet, messages: &[&str]) {
    let mut needed = BTreeSet::new();
    let mut pending: Vec<String> = set
        .file
        .iter()
        .filter(|file| {
            let has = |name: &&str| {
                file.message_type
                    .iter()
                    .any(|message| qualified(file.package(), message.name()) == **name)
            };
            messages.iter().any(has)
        })
        .map(|file| file.name().to_owned())
        .collect();
    while let Some(name) = pending.pop() {
        if needed.insert(name.clone()) {
            let file = set.file.iter().find(|file| file.name() == name);
            pending.extend(file.into_iter().flat_map(|file| file.dependency.clone()));
        }
    }
    set.file.retain(|file| needed.contains(file.name()));
    for file in &mut set.file {
        file.source_code_info = None;
    }
}

/// Checks that the descriptors have every message and key field of the schema.
pub(crate) fn check(set: &FileDescriptorSet, described: &Described) -> Result<(), SchemaError> {
    for name in described.messages() {
        if message(set, name).is_none() {
            let message = name.to_owned();
            return Err(SchemaError::NoMessage { message });
        }
    }
    for event in &described.events {
        let fields = message(set, &event.message).map(|message| &message.field[..]);
        let key = fields
            .unwrap_or_default()
            .iter()
            .find(|field| field.name() == event.key);
        let is_string = |key: &FieldDescriptorProto| {
            key.r#type() == Type::String && key.label() != Label::Repeated
        };
        if !key.is_some_and(is_string) {
            return Err(SchemaError::NoKey {
                subject: event.subject.clone(),
                key: event.key.clone(),
                message: event.message.clone(),
            });
        }
    }
    Ok(())
}

/// Every event, question, field, personal field and enum value, one line each.
///
/// # Errors
/// [`SchemaError::NotBase64`] and [`SchemaError::NotDescriptors`].
pub fn of(described: &Described) -> Result<BTreeSet<String>, SchemaError> {
    let set = FileDescriptorSet::decode(&*described.descriptors()?)?;
    let mut facts = BTreeSet::new();
    for event in &described.events {
        let (subject, message, key) = (&event.subject, &event.message, &event.key);
        facts.insert(format!("event {subject} {message} by {key}"));
    }
    for question in &described.questions {
        let (subject, asked, answered) = (&question.subject, &question.asked, &question.answered);
        facts.insert(format!("question {subject} {asked} {answered}"));
    }
    for field in &described.personal {
        facts.insert(format!("personal {field}"));
    }
    for file in &set.file {
        for message in &file.message_type {
            of_message(file.package(), message, &mut facts);
        }
        for enumeration in &file.enum_type {
            of_enum(file.package(), enumeration, &mut facts);
        }
    }
    Ok(facts)
}

fn of_message(scope: &str, message: &DescriptorProto, facts: &mut BTreeSet<String>) {
    let name = qualified(scope, message.name());
    for field in &message.field {
        let oneof = field.oneof_index.and_then(|index| {
            let declared = message.oneof_decl.get(usize::try_from(index).ok()?)?;
            Some(declared.name())
        });
        facts.insert(format!(
            "field {name}.{} = {} {:?} {:?} {} {}",
            field.name(),
            field.number(),
            field.label(),
            field.r#type(),
            field.type_name(),
            oneof.unwrap_or_default()
        ));
    }
    for nested in &message.nested_type {
        of_message(&name, nested, facts);
    }
    for nested in &message.enum_type {
        of_enum(&name, nested, facts);
    }
}

fn of_enum(scope: &str, enumeration: &EnumDescriptorProto, facts: &mut BTreeSet<String>) {
    let name = qualified(scope, enumeration.name());
    for value in &enumeration.value {
        facts.insert(format!(
            "value {name}.{} = {}",
            value.name(),
            value.number()
        ));
    }
}

fn message<'a>(set: &'a FileDescriptorSet, name: &str) -> Option<&'a DescriptorProto> {
    set.file.iter().find_map(|file| {
        file.message_type
            .iter()
            .find(|message| qualified(file.package(), message.name()) == name)
    })
}

fn qualified(scope: &str, name: &str) -> String {
    if scope.is_empty() {
        name.to_owned()
    } else {
        format!("{scope}.{name}")
    }
}
