//! Reads the options of the messages, and checks them.

use std::collections::HashMap;

use heck::ToUpperCamelCase as _;
use protox::prost_reflect::{
    DynamicMessage, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor,
};

use crate::Error;
use crate::descriptors::Compiled;

/// The field `options` of a `DescriptorProto`, in the path of a source location.
const MESSAGE_OPTIONS: i32 = 7;

/// `headwater_event::version::NEWER_FIELD`.
pub(crate) const NEWER_FIELD: u32 = 57_183;

/// The first parts of the subjects of questions and of the chassis: a stream of such a source would
/// capture them.
const RESERVED: [&str; 2] = ["headwater", "inquiry"];

/// What the options say.
#[derive(Default)]
pub(crate) struct Contract {
    pub(crate) events: Vec<Event>,
    pub(crate) questions: Vec<Question>,
}

pub(crate) struct Event {
    /// `<source>.v<version>.<name>`.
    pub(crate) subject: String,
    pub(crate) source: String,
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) message: MessageDescriptor,
    pub(crate) key: String,
}

impl Event {
    /// Whether the message has the option `deprecated`.
    pub(crate) fn is_retired(&self) -> bool {
        let options = self.message.descriptor_proto().options.as_ref();
        options.is_some_and(prost_types::MessageOptions::deprecated)
    }
}

pub(crate) struct Question {
    pub(crate) subject: String,
    pub(crate) asked: MessageDescriptor,
    /// The full name of the message.
    pub(crate) answered: String,
}

/// Reads the options of all messages, in the order of the files.
///
/// # Errors
/// Every mistake, one line each.
pub(crate) fn read(compiled: &Compiled) -> Result<Contract, Error> {
    let mut reader = Reader {
        compiled,
        contract: Contract::default(),
        places: HashMap::new(),
        mistakes: Vec::new(),
    };
    for file in compiled.files() {
        for message in file.messages() {
            reader.message(&message);
        }
    }
    reader.variants();
    if reader.mistakes.is_empty() {
        Ok(reader.contract)
    } else {
        Err(Error(reader.mistakes.join("\n")))
    }
}

struct Reader<'a> {
    compiled: &'a Compiled,
    contract: Contract,
    /// Where each subject was found.
    places: HashMap<String, String>,
    mistakes: Vec<String>,
}

/// An option of a message.
struct Found<'a> {
    message: &'a MessageDescriptor,
    fields: DynamicMessage,
    /// `<file>:<line>`.
    place: String,
}

impl Found<'_> {
    /// A string field; empty if it is not set.
    fn text(&self, field: &str) -> String {
        let value = self.fields.get_field_by_name(field);
        let text = value.as_ref().and_then(|value| value.as_str());
        text.unwrap_or_default().to_owned()
    }
}

impl Reader<'_> {
    fn message(&mut self, message: &MessageDescriptor) {
        let event = self.option(message, "event");
        let question = self.option(message, "question");
        let (read, place) = match (event, question) {
            (None, None) => (Ok(()), String::new()),
            (Some(option), None) => (self.event(&option), option.place),
            (None, Some(option)) => (self.question(&option), option.place),
            (Some(_), Some(option)) => {
                let name = message.name();
                let mistake = format!("{name} is an event and a question: remove one option");
                (Err(mistake), option.place)
            }
        };
        if let Err(mistake) = read {
            self.mistakes.push(format!("{place}: {mistake}"));
        }
        for nested in message.child_messages() {
            self.message(&nested);
        }
    }

    fn option<'a>(&self, message: &'a MessageDescriptor, name: &str) -> Option<Found<'a>> {
        let name = format!("headwater.{name}");
        let extension = self.compiled.pool.get_extension_by_name(&name)?;
        let options = message.options();
        if !options.has_extension(&extension) {
            return None;
        }
        let number = i32::try_from(extension.number()).ok()?;
        let path = [message.path(), &[MESSAGE_OPTIONS, number]].concat();
        Some(Found {
            message,
            fields: options.get_extension(&extension).as_message()?.clone(),
            place: self.place(&message.parent_file(), &path),
        })
    }

    /// Where `path` is, or its first part: `option (headwater.event).name` has the path of the name.
    fn place(&self, file: &FileDescriptor, path: &[i32]) -> String {
        let info = file.file_descriptor_proto().source_code_info.as_ref();
        let mut places = info.into_iter().flat_map(|info| &info.location);
        let place = places.find(|place| place.path.starts_with(path));
        let line = place.and_then(|place| place.span.first()).unwrap_or(&0) + 1;
        let folder = self.compiled.folder.display();
        format!("{folder}/{}:{line}", file.name())
    }

    fn event(&mut self, option: &Found<'_>) -> Result<(), String> {
        let subject = self.subject(option, "event")?;
        let key = key(option)?;
        expect_room_for_newer(option.message)?;
        let package = option.message.package_name();
        let (source, version) = versioned(package).expect("the subject has both");
        self.contract.events.push(Event {
            subject,
            source: source.to_owned(),
            version,
            name: option.text("name"),
            message: option.message.clone(),
            key,
        });
        Ok(())
    }

    /// Checks that the names of a source's events are different variants of its enumeration.
    fn variants(&mut self) {
        let mut seen: HashMap<(&str, String), &str> = HashMap::new();
        for Event { source, name, .. } in &self.contract.events {
            let variant = (&**source, name.to_upper_camel_case());
            let other = *seen.entry(variant).or_insert(name);
            if other != name {
                let place = self
                    .contract
                    .events
                    .iter()
                    .find(|event| event.source == *source && event.name == *name)
                    .and_then(|event| self.places.get(&format!("event {}", event.subject)));
                self.mistakes.push(format!(
                    "{}: the name `{name}` is, as a variant of an enumeration, the same as \
                     `{other}` of the source {source}: write another name",
                    place.map_or("", String::as_str)
                ));
            }
        }
    }

    fn question(&mut self, option: &Found<'_>) -> Result<(), String> {
        let subject = self.subject(option, "question")?;
        let subject = format!("inquiry.{subject}");
        let answered = self.answer(option)?;
        self.contract.questions.push(Question {
            subject,
            asked: option.message.clone(),
            answered,
        });
        Ok(())
    }

    /// `<source>.v<version>.<name>`.
    fn subject(&mut self, option: &Found<'_>, what: &str) -> Result<String, String> {
        let (message, name) = (option.message.name(), option.text("name"));
        if option.message.parent_message().is_some() {
            return Err(format!(
                "the {what} {message} is inside of another message: move it to the top level"
            ));
        }
        let package = option.message.package_name();
        let (source, version) = versioned(package).ok_or_else(|| {
            format!(
                "the {what} {message} is in `package {package};`, which does not end with a source \
                 and a version: write, for example, `package shop.orders.v1;`"
            )
        })?;
        if RESERVED.contains(&source) {
            return Err(format!(
                "the {what} {message} has the source `{source}`, whose subjects the chassis uses: \
                 write another package"
            ));
        }
        let subject = format!("{source}.v{version}.{name}");
        if !is_token(&name) {
            return Err(format!(
                "the {what} {message} has the name `{name}`: write `name: \"…\"`, the last part of \
                 its subject {source}.v{version}.…, in letters, digits, `_` and `-`"
            ));
        }
        let unique = format!("{what} {subject}");
        if let Some(other) = self.places.get(&unique) {
            return Err(format!(
                "the {what} {message} has the subject {subject}, as the one at {other}: write \
                 another name"
            ));
        }
        self.places.insert(unique, option.place.clone());
        Ok(subject)
    }

    /// The full name of the message that answers a question.
    fn answer(&self, option: &Found<'_>) -> Result<String, String> {
        let (message, answer) = (option.message, option.text("answer"));
        let in_package = format!("{}.{answer}", message.package_name());
        let mut names = [in_package, answer.clone()].into_iter();
        let found = names.find(|name| self.is_described(name));
        found.ok_or_else(|| {
            format!(
                "the question {} has the answer `{answer}`: write `answer: \"…\"`, the name of a \
                 top-level message in the package {}, or the full name of another",
                message.name(),
                message.package_name()
            )
        })
    }

    /// Whether the schema can contain the message: one on the top level of a file that is needed.
    fn is_described(&self, name: &str) -> bool {
        let message = self.compiled.pool.get_message_by_name(name);
        message.is_some_and(|message| {
            let file = message.parent_file();
            let is_needed = self.compiled.needed().any(|it| it.name() == file.name());
            message.parent_message().is_none() && is_needed
        })
    }
}

/// The name of the field that holds the key.
fn key(option: &Found<'_>) -> Result<String, String> {
    let key = option.text("key");
    let fits = option.message.get_field_by_name(&key);
    if fits.is_some_and(|field| is_plain_string(&field)) {
        return Ok(key);
    }
    let fields = option.message.fields().filter(is_plain_string);
    let fields: Vec<_> = fields.map(|field| format!("`{}`", field.name())).collect();
    let advice = match &fields[..] {
        [] => "add a field of type string".to_owned(),
        fields => format!("write one of {}", fields.join(", ")),
    };
    Err(format!(
        "the event {} has the key `{key}`, which is not one of its plain string fields: {advice}",
        option.message.name()
    ))
}

/// Checks that no field has the number of newer versions, which an older version's payload may hold.
fn expect_room_for_newer(message: &MessageDescriptor) -> Result<(), String> {
    let Some(field) = message.get_field(NEWER_FIELD) else {
        return Ok(());
    };
    Err(format!(
        "the event {} has the field `{}` with the number {NEWER_FIELD}, which the chassis uses for \
         newer versions of an event: write another number",
        message.name(),
        field.name()
    ))
}

/// Not repeated, optional or in a `oneof`: every event has a key.
fn is_plain_string(field: &FieldDescriptor) -> bool {
    let is_always_there = field.is_required() || !field.supports_presence();
    field.kind() == Kind::String && !field.is_list() && is_always_there
}

/// The source and the version: the last two parts of a package.
pub(crate) fn versioned(package: &str) -> Option<(&str, u32)> {
    let (before, version) = package.rsplit_once('.')?;
    let source = before.rsplit('.').next()?;
    let digits = version.strip_prefix('v')?;
    let number = digits.parse::<u32>().ok()?;
    (number > 0 && number.to_string() == digits).then_some((source, number))
}

/// Whether it can be a part of a subject.
fn is_token(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.chars().all(is_plain)
}
