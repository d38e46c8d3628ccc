//! Every mistake fails with its place and with what to write.

use std::path::Path;

use headwater_event::facts;
use headwater_event::schema::{Described, Kind, Question, Schema};
use protox::Compiler;
use protox::prost_reflect::DescriptorPool;
use tempfile::TempDir;

use crate::descriptors::{self, OPTIONS};
use crate::options::NEWER_FIELD;
use crate::{Error, generate};

const HEAD: &str = "syntax = \"proto3\";
package shop.orders.v1;
import \"headwater/options.proto\";
";

/// A folder with these files in `proto`, and what was generated in `out`.
struct Generated {
    folder: TempDir,
    result: Result<(), Error>,
}

impl Generated {
    fn from(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = folder.path().join("proto").join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, text).unwrap();
        }
        let out = folder.path().join("out");
        std::fs::create_dir(&out).unwrap();
        let result = generate(&folder.path().join("proto"), &out);
        Self { folder, result }
    }

    fn read(&self, name: &str) -> Vec<u8> {
        self.result.as_ref().unwrap();
        std::fs::read(self.folder.path().join("out").join(name)).unwrap()
    }

    fn code(&self) -> String {
        String::from_utf8(self.read("headwater-events.rs")).unwrap()
    }

    /// The types that can be used without their package.
    fn uses(&self) -> Vec<String> {
        let code = self.code();
        let uses = code.lines().filter_map(|it| it.strip_prefix("pub use "));
        uses.map(str::to_owned).collect()
    }

    /// The error, with the folder left out.
    fn error(self) -> String {
        let folder = format!("{}/", self.folder.path().display());
        let error = self.result.expect_err("a mistake");
        assert_eq!(format!("{error:?}"), error.to_string());
        error.to_string().replace(&folder, "")
    }
}

/// The error of a file with `HEAD`, three lines, and `text`.
fn error(text: &str) -> String {
    Generated::from(&[("a.proto", &format!("{HEAD}{text}"))]).error()
}

fn event(options: &str) -> String {
    let event = format!(
        "message OrderPlaced {{
           option (headwater.event) = {{ {options} }};
           string order_id = 1;
           string user_id = 2;
           repeated string product_ids = 3;
           optional string voucher = 4;
           int64 placed_at = 5;
           oneof how {{ string card = 6; string cash = 7; }}
         }}"
    );
    error(&event)
}

#[test]
fn an_event_without_a_name_is_a_mistake() {
    assert_eq!(
        event("key: \"user_id\""),
        "proto/a.proto:5: the event OrderPlaced has the name ``: write `name: \"…\"`, the last part \
         of its subject orders.v1.…, in letters, digits, `_` and `-`"
    );
    let error = event("name: \"pla.ced\" key: \"user_id\"");
    assert!(error.contains("has the name `pla.ced`: write"), "{error}");
}

#[test]
fn a_key_that_is_no_plain_string_field_is_a_mistake() {
    for key in [
        "user",
        "product_ids",
        "voucher",
        "placed_at",
        "card",
        "",
        "name",
    ] {
        assert_eq!(
            event(&format!("name: \"placed\" key: \"{key}\"")),
            format!(
                "proto/a.proto:5: the event OrderPlaced has the key `{key}`, which is not one of \
                 its plain string fields: write one of `order_id`, `user_id`"
            )
        );
    }
    let error = error(
        "message Ticked {
           option (headwater.event) = { name: \"ticked\" key: \"at\" };
           int64 at = 1;
         }",
    );
    assert!(
        error.ends_with("plain string fields: add a field of type string"),
        "{error}"
    );
}

#[test]
fn two_events_with_one_subject_are_a_mistake() {
    assert_eq!(
        error(
            "message A {
               option (headwater.event) = { name: \"placed\" key: \"id\" };
               string id = 1;
             }
             message B {
               option (headwater.event) = { name: \"placed\" key: \"id\" };
               string id = 1;
             }"
        ),
        "proto/a.proto:9: the event B has the subject orders.v1.placed, as the one at \
         proto/a.proto:5: write another name"
    );
}

#[test]
fn an_event_outside_of_a_versioned_package_is_a_mistake() {
    for package in [
        "shop.orders",
        "v1",
        "shop.orders.v0",
        "shop.orders.v01",
        "shop.orders.vx",
    ] {
        let file = format!(
            "syntax = \"proto3\";
             package {package};
             import \"headwater/options.proto\";
             message OrderPlaced {{
               option (headwater.event) = {{ name: \"placed\" key: \"id\" }};
               string id = 1;
             }}"
        );
        assert_eq!(
            Generated::from(&[("shop/a.proto", &file)]).error(),
            format!(
                "proto/shop/a.proto:5: the event OrderPlaced is in `package {package};`, which does \
                 not end with a source and a version: write, for example, `package shop.orders.v1;`"
            )
        );
    }
}

#[test]
fn an_event_inside_of_a_message_is_a_mistake() {
    assert_eq!(
        error(
            "message Order {
               message Placed {
                 option (headwater.event) = { name: \"placed\" key: \"id\" };
                 string id = 1;
               }
             }"
        ),
        "proto/a.proto:6: the event Placed is inside of another message: move it to the top level"
    );
}

#[test]
fn a_question_without_an_answer_is_a_mistake() {
    for answer in ["", "OrderAnswered", "Order.Answered", "headwater.Event"] {
        assert_eq!(
            error(&format!(
                "message OrdersAsked {{
                   option (headwater.question) = {{ name: \"asked\" answer: \"{answer}\" }};
                 }}
                 message Order {{ message Answered {{}} }}"
            )),
            format!(
                "proto/a.proto:5: the question OrdersAsked has the answer `{answer}`: write \
                 `answer: \"…\"`, the name of a top-level message in the package shop.orders.v1, \
                 or the full name of another"
            )
        );
    }
    let error = error("message A { option (headwater.question) = { answer: \"A\" }; }");
    assert!(
        error.contains("4: the question A has the name ``"),
        "{error}"
    );
}

#[test]
fn an_event_that_is_a_question_too_is_a_mistake() {
    assert_eq!(
        error(
            "message OrderPlaced {
               option (headwater.event) = { name: \"placed\" key: \"id\" };
               option (headwater.question) = { name: \"asked\" answer: \"OrderPlaced\" };
               string id = 1;
             }"
        ),
        "proto/a.proto:6: OrderPlaced is an event and a question: remove one option"
    );
}

#[test]
fn a_source_whose_subjects_the_chassis_uses_is_a_mistake() {
    for source in ["headwater", "inquiry"] {
        let file = format!(
            "syntax = \"proto3\";
             package shop.{source}.v1;
             import \"headwater/options.proto\";
             message OrderPlaced {{
               option (.headwater.event) = {{ name: \"placed\" key: \"id\" }};
               string id = 1;
             }}"
        );
        assert_eq!(
            Generated::from(&[("a.proto", &file)]).error(),
            format!(
                "proto/a.proto:5: the event OrderPlaced has the source `{source}`, whose subjects \
                 the chassis uses: write another package"
            )
        );
    }
}

#[test]
fn an_option_that_is_set_field_by_field_has_its_line() {
    let error = error(
        "message OrderPlaced {
           string id = 1;
           option (headwater.event).name = \"placed\";
         }",
    );
    assert!(error.starts_with("proto/a.proto:6: "), "{error}");
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let error = error(
        "message A { option (headwater.event) = { name: \"a\" }; }
         message B { option (headwater.event) = { name: \"b\" }; }",
    );
    let lines: Vec<_> = error.lines().map(|line| &line[..16]).collect();
    assert_eq!(lines, ["proto/a.proto:4:", "proto/a.proto:5:"]);
}

#[test]
fn what_does_not_compile_is_reported_with_advice() {
    let import = "write `import \"headwater/options.proto\";` and `headwater.event`, \
                  `headwater.question` or `headwater.personal`";
    let file = "syntax = \"proto3\";\n\nmessage A { option (headwater.event) = { name: \"a\" }; }";
    assert_eq!(
        Generated::from(&[("shop/a.proto", file)]).error(),
        format!("proto/shop/a.proto:3:13: name 'headwater.event' is not defined: {import}")
    );
    let unknown = error("message A { option (headwater.evnt) = { name: \"a\" }; }");
    assert!(
        unknown.starts_with("proto/a.proto:4:13: 'headwater.evnt'"),
        "{unknown}"
    );
    assert!(unknown.ends_with(import), "{unknown}");
    for (option, value) in [
        (
            "event",
            "{ name: \"placed\" key: \"user_id\" }` with your name and key",
        ),
        (
            "question",
            "{ name: \"asked\" answer: \"UserAnswered\" }` with your name and answer",
        ),
    ] {
        let unknown = error(&format!(
            "message A {{ option (headwater.{option}) = {{ nmae: \"a\" }}; }}"
        ));
        assert!(
            unknown.starts_with("proto/a.proto:4:13: invalid value"),
            "{unknown}"
        );
        assert!(unknown.ends_with(&format!(": write `{value}")), "{unknown}");
    }
    assert_eq!(
        error("message A { string = 1 }"),
        "proto/a.proto:4:20: expected an identifier, but found '='"
    );
    assert_eq!(
        Generated::from(&[("a.txt", "")]).error(),
        "there is no .proto file in proto"
    );
}

#[test]
fn names_are_written_as_prost_writes_them() {
    let file = "syntax = \"proto3\";
package shop.type.v2;
import \"headwater/options.proto\";
message HTTPRequested {
  option (headwater.event) = { name: \"http-requested\" key: \"requestId\" };
  string requestId = 1;
}
message Self {
  option (headwater.event) = { name: \"self\" key: \"_1\" };
  string _1 = 1;
}
message _2Seen {
  option (headwater.event) = { name: \"seen\" key: \"type\" };
  string type = 1;
}";
    let generated = Generated::from(&[("a.proto", file)]);
    let types = String::from_utf8(generated.read("shop.r#type.v2.rs")).unwrap();
    for (text, line) in [
        (
            &*generated.code(),
            "impl headwater_event::Event for self::r#shop::r#type::r#v2::HttpRequested {
    const SUBJECT: &'static str = \"type.v2.http-requested\";

    fn key(&self) -> &str {
        &self.r#request_id
",
        ),
        (&types, "pub struct HttpRequested {"),
        (&types, "pub request_id: "),
        (&generated.code(), "for self::r#shop::r#type::r#v2::Self_ {"),
        (&generated.code(), "&self._1\n"),
        (&types, "pub struct Self_ {"),
        (&types, "pub _1: "),
        (
            &generated.code(),
            "for self::r#shop::r#type::r#v2::_2seen {",
        ),
        (&generated.code(), "&self.r#type\n"),
        (&types, "pub struct _2seen {"),
        (&types, "pub r#type: "),
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn a_short_name_is_the_newest_version_and_of_one_source_only() {
    let file = |package: &str, more: &str| format!("syntax = \"proto3\"; {package} {more}");
    let files = [
        (
            "v1.proto",
            &*file(
                "package shop.orders.v1;",
                "message Placed {} enum Kind { NONE = 0; } message Address {}",
            ),
        ),
        (
            "v10.proto",
            &*file("package shop.orders.v10;", "message Placed {}"),
        ),
        (
            "v2.proto",
            &*file(
                "package shop.orders.v2;",
                "message Placed {} message Line {} message Total {}",
            ),
        ),
        (
            "users.proto",
            &*file("package shop.users.v2;", "message Address {}"),
        ),
        ("none.proto", &*file("", "message Total {} message Own {}")),
    ];
    let expected = [
        "self::r#shop::r#orders::r#v1::Kind;",
        "self::r#shop::r#orders::r#v2::Line;",
        "self::r#shop::r#orders::r#v10::Placed;",
    ];
    assert_eq!(Generated::from(&files).uses(), expected);
}

/// An event of `orders` in a version, with the name `placed`.
fn versioned(version: u32) -> (String, String) {
    let text = format!(
        "syntax = \"proto3\"; package shop.orders.v{version}; import \"headwater/options.proto\";
         message OrderPlaced {{
           option (headwater.event) = {{ name: \"placed\" key: \"id\" }};
           string id = 1;
         }}"
    );
    (format!("v{version}.proto"), text)
}

#[test]
fn an_event_is_read_through_its_older_versions_and_enumerated_in_its_newest() {
    let files = [versioned(10), versioned(2), versioned(1)];
    let files = files.each_ref().map(|(name, text)| (&**name, &**text));
    let code = Generated::from(&files).code();
    for line in [
        // Each version upcasts from the one before.
        "            2 | 1 => {
                let old = <self::r#shop::r#orders::r#v2::OrderPlaced as headwater_event::Event>",
        "            1 => {
                let old = <self::r#shop::r#orders::r#v1::OrderPlaced as headwater_event::Event>",
        "pub enum OrdersEvent {
    /// `orders.v10.placed`.
    Placed(self::r#shop::r#orders::r#v10::OrderPlaced),
}",
        "\"orders.v10.placed\" | \"orders.v2.placed\" | \"orders.v1.placed\" => \
         event.decode().map(Self::Placed),",
        "\"orders.v10.placed\" | \"orders.v2.placed\" | \"orders.v1.placed\" => \
         of::<self::r#shop::r#orders::r#v10::OrderPlaced>(event),",
    ] {
        assert!(code.contains(line), "{line} is not in\n{code}");
    }
}

#[test]
fn two_names_that_are_one_variant_are_a_mistake() {
    let event = |message: &str, name: &str| {
        format!(
            "message {message} {{
               option (headwater.event) = {{ name: \"{name}\" key: \"id\" }};
               string id = 1;
             }}\n"
        )
    };
    let text = event("A", "sent-back") + &event("B", "sent_back") + &event("C", "sent");
    assert_eq!(
        error(&text),
        "proto/a.proto:9: the name `sent_back` is, as a variant of an enumeration, the same as \
         `sent-back` of the source orders: write another name"
    );
}

#[test]
fn a_field_with_the_number_of_newer_versions_is_a_mistake() {
    assert_eq!(NEWER_FIELD, headwater_event::version::NEWER_FIELD);
    let text = format!(
        "message A {{
           option (headwater.event) = {{ name: \"a\" key: \"id\" }};
           string id = 1;
           string note = {NEWER_FIELD};
         }}"
    );
    assert_eq!(
        error(&text),
        "proto/a.proto:5: the event A has the field `note` with the number 57183, which the chassis \
         uses for newer versions of an event: write another number"
    );
}

#[test]
fn a_retired_event_is_deprecated_and_still_enumerated() {
    let text = "message OrderPlaced {
       option deprecated = true;
       option (headwater.event) = { name: \"placed\" key: \"id\" };
       string id = 1;
     }
     message OrderPlacedAgain {}";
    let generated = Generated::from(&[("a.proto", &format!("{HEAD}{text}"))]);
    let types = String::from_utf8(generated.read("shop.orders.v1.rs")).unwrap();
    assert_eq!(types.matches("#[deprecated").count(), 1, "{types}");
    let before = types.split("pub struct OrderPlaced {").next().unwrap();
    assert!(before.contains("#[deprecated = \"retired: "), "{types}");
    let variant = "Placed(self::r#shop::r#orders::r#v1::OrderPlaced)";
    assert!(generated.code().contains(variant));
}

#[test]
fn a_name_of_the_prelude_is_used_with_its_package() {
    let generated = Generated::from(&[
        (
            "a.proto",
            &*format!("{HEAD}message Option {{}} message Line {{}}"),
        ),
        ("none.proto", "syntax = \"proto3\"; message String {}"),
    ]);
    assert_eq!(generated.uses(), ["self::r#shop::r#orders::r#v1::Line;"]);
    // A type without a package hides the name in the generated code too.
    for name in ["Option<", "String>", "ToOwned"] {
        let code = generated.code();
        let mut places = code.match_indices(name);
        let is_full = places.all(|(at, _)| code[..at].ends_with("::"));
        assert!(is_full, "{name} in\n{code}");
    }
}

const ORDERS: &str = "message OrderPlaced {
  option (headwater.event) = { name: \"placed\" key: \"id\" };
  string id = 1;
  string address = 2 [(headwater.personal) = true];
}
message OrdersAsked {
  option (headwater.question) = { name: \"asked\" answer: \"OrderPlaced\" };
}
";

fn schema(descriptors: Vec<u8>) -> Described {
    let schema = Schema {
        events: &[Kind {
            subject: "orders.v1.placed",
            message: "shop.orders.v1.OrderPlaced",
            key: "id",
        }],
        questions: &[Question {
            subject: "inquiry.orders.v1.asked",
            asked: "shop.orders.v1.OrdersAsked",
            answered: "shop.orders.v1.OrderPlaced",
        }],
        descriptors: Box::leak(descriptors.into_boxed_slice()),
    };
    schema.of("orders").unwrap()
}

/// Programs of before the options compare schemas with programs of after.
#[test]
fn the_schema_in_the_bucket_is_the_same_without_the_options_and_names_personal_fields() {
    let with = format!("{HEAD}{ORDERS}");
    let without = "syntax = \"proto3\";
package shop.orders.v1;
message OrderPlaced {
  string id = 1;
  string address = 2;
}
message OrdersAsked {}
";
    let descriptors = |text: &str| {
        Generated::from(&[("orders/v1/events.proto", text)]).read("headwater-descriptors.bin")
    };
    let (with, without) = (schema(descriptors(&with)), schema(descriptors(without)));
    let mut facts = facts::of(&with).unwrap();
    let address = "shop.orders.v1.OrderPlaced.address";
    assert_eq!(with.personal, [address]);
    assert!(facts.remove(&format!("personal {address}")));
    assert_eq!(facts, facts::of(&without).unwrap());
    assert_eq!(with.events, without.events);
}

#[test]
fn a_program_that_knows_the_options_finds_personal_fields() {
    let file = format!("{HEAD}{ORDERS}");
    let generated = Generated::from(&[("orders/v1/events.proto", &file)]);
    let descriptors = generated.read("headwater-descriptors.bin");
    let names = DescriptorPool::decode(&*descriptors).unwrap();
    let names: Vec<_> = names.files().map(|file| file.name().to_owned()).collect();
    assert_eq!(names, ["orders/v1/events.proto"]);

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let mut compiler = Compiler::new([folder]).unwrap();
    let mut pool = compiler.open_file(OPTIONS).unwrap().descriptor_pool();
    pool.decode_file_descriptor_set(&*descriptors).unwrap();
    let personal = pool.get_extension_by_name("headwater.personal").unwrap();
    let message = pool.get_message_by_name("shop.orders.v1.OrderPlaced");
    let is_personal = |name: &str| {
        let field = message.as_ref().unwrap().get_field_by_name(name).unwrap();
        let options = field.options();
        options.get_extension(&personal).as_bool().unwrap()
    };
    assert!(is_personal("address"));
    assert!(!is_personal("id"));
}

#[test]
fn an_import_that_is_handed_on_stays_so() {
    let files = [
        ("a.proto", &*format!("{HEAD}import public \"b.proto\";")),
        ("b.proto", "syntax = \"proto3\"; message B {}"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let compiled = descriptors::compile(folder.path()).unwrap();
    let pool = DescriptorPool::decode(&*descriptors::without_options(&compiled)).unwrap();
    let file = pool.get_file_by_name("a.proto").unwrap();
    let public: Vec<_> = file.public_dependencies().collect();
    assert_eq!(public.len(), 1);
    assert_eq!(public[0].name(), "b.proto");
}
