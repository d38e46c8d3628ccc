//! The fields that a `.proto` file marks as personal: `[(headwater.personal) = true]`.
//!
//! The types of `prost-types` drop options that they do not know, so the set is read with these.

use prost::{DecodeError, Message};

#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "4")]
    message_type: Vec<Declared>,
}

#[derive(Clone, PartialEq, Message)]
struct Declared {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    field: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    nested_type: Vec<Declared>,
}

#[derive(Clone, PartialEq, Message)]
struct Field {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "8")]
    options: Option<Options>,
}

#[derive(Clone, PartialEq, Message)]
struct Options {
    /// `headwater.personal` in `headwater/options.proto`. Never renumber.
    #[prost(bool, tag = "57182")]
    personal: bool,
}

/// The full names of the personal fields in these files of a serialized `FileDescriptorSet`, sorted.
pub(crate) fn personal(
    descriptors: &[u8],
    is_needed: impl Fn(&str) -> bool,
) -> Result<Vec<String>, DecodeError> {
    let mut fields = Vec::new();
    for file in Files::decode(descriptors)?.file {
        if is_needed(&file.name) {
            for message in &file.message_type {
                of_message(&file.package, message, &mut fields);
            }
        }
    }
    fields.sort();
    Ok(fields)
}

fn of_message(scope: &str, message: &Declared, fields: &mut Vec<String>) {
    let name = if scope.is_empty() {
        message.name.clone()
    } else {
        format!("{scope}.{}", message.name)
    };
    let is_personal = |field: &&Field| field.options.as_ref().is_some_and(|it| it.personal);
    let personal = message.field.iter().filter(is_personal);
    fields.extend(personal.map(|field| format!("{name}.{}", field.name)));
    for nested in &message.nested_type {
        of_message(&name, nested, fields);
    }
}
