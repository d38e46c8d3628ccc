//! `deploy/nats/accounts.conf`: an account for each service.

use std::collections::BTreeMap;

use crate::service::Service;

/// What stays the same, with a `{hole}` for each part that follows from the list.
const TEMPLATE: &str = include_str!("../templates/accounts.conf");

/// The discovery of a service.
const SRV: [&str; 3] = [
    r#"{ service: { account: {NAME}, subject: "$SRV.*" } }"#,
    r#"{ service: { account: {NAME}, subject: "$SRV.*.{name}" } }"#,
    r#"{ service: { account: {NAME}, subject: "$SRV.*.{name}.*" } }"#,
];

const ADMIN: &str = r#"{ service: { account: {NAME}, subject: "headwater.{name}.>" } }"#;

const ASKED: &str = r#"{ service: { account: {NAME}, subject: "inquiry.{name}.v1.asked" } }"#;

/// The import of a question. It stays between the two accounts: nobody else sees who was asked for.
fn asks(question: &str) -> String {
    let name = question.split('.').next().unwrap_or_default();
    let account = account(name);
    format!("{{ service: {{ account: {account}, subject: \"inquiry.{question}\" }} }}")
}

/// The name of a service's account, and of its stream.
pub(crate) fn account(name: &str) -> String {
    name.to_uppercase()
}

/// An import from the account with the streams.
fn bus(subject: &str) -> String {
    format!("      {{ service: {{ account: BUS, subject: \"{subject}\" }} }}\n")
}

/// The file, for `services` in this order.
pub(crate) fn file(services: &[Service]) -> String {
    let list = |is_in: fn(&Service) -> bool| {
        let names = services.iter().filter(|service| is_in(service));
        let names: Vec<_> = names.map(|service| account(&service.name)).collect();
        names.join(", ")
    };
    let mut holes = BTreeMap::from([
        ("all", list(|_| true)),
        ("sources", list(|service| service.source)),
        (
            "readers",
            list(|service| service.consumers().next().is_some()),
        ),
    ]);
    for service in services {
        let mut add = |hole: &'static str, line: &str| {
            let text = holes.entry(hole).or_default();
            let line = line.replace("{name}", &service.name);
            text.extend([format!(
                "      {}\n",
                line.replace("{NAME}", &account(&service.name))
            )]);
        };
        SRV.into_iter()
            .chain([ADMIN])
            .for_each(|line| add("operator", line));
        ["# {name}"]
            .into_iter()
            .chain(SRV)
            .for_each(|line| add("viewer", line));
        for what in may_view(service) {
            add("viewer", &ADMIN.replace('>', what));
        }
        if service.source {
            add("events", r#"{ service: "{name}.>", accounts: [{NAME}] }"#);
            let schema = r#"{ service: "$KV.headwater-schemas.{name}", accounts: [{NAME}] }"#;
            add("schemas", schema);
            let published = r#"{ stream: { account: {NAME}, subject: "{name}.*.>" } }"#;
            add("published", published);
        }
        if service.answers {
            add("asked", ASKED);
        }
        for question in services.iter().flat_map(|it| &it.asks) {
            if service.is_asked(question) {
                add("asks", &asks(question));
            }
        }
    }
    // Only the first account has comments on what the next ones repeat.
    let accounts = services.iter().enumerate();
    let accounts = accounts.map(|(number, service)| own(service, services, number == 0));
    holes.insert("accounts", accounts.collect::<Vec<_>>().join("\n"));
    holes
        .into_iter()
        .fold(TEMPLATE.to_owned(), |text, (hole, filling)| {
            // The lines of a hole end themselves.
            let whole = text.replace(&format!("{{{hole}}}\n"), &filling);
            whole.replace(&format!("{{{hole}}}"), &filling)
        })
}

/// The admin endpoints of a service that change nothing.
fn may_view(service: &Service) -> Vec<&'static str> {
    let mut may = vec!["status"];
    if service.source {
        may.extend(["events", "backup.status"]);
    }
    if !service.projections.is_empty() {
        may.extend(["verify", "fold"]);
    }
    may.extend([
        "dead-letters.list",
        "dead-letters.show",
        "dead-letters.discarded",
    ]);
    may
}

/// The account of a service.
fn own(service: &Service, services: &[Service], is_first: bool) -> String {
    let (name, upper) = (&service.name, account(&service.name));
    let reads = |other: &&Service| {
        let mut sources = other.consumers().flat_map(|(_, sources)| sources);
        other.name != *name && sources.any(|source| source == name)
    };
    let readers = services.iter().filter(reads);
    let readers: Vec<_> = readers.map(|it| account(&it.name)).collect();
    let admins = [&["BUS".to_owned(), "VIEWER".to_owned()], &*readers].concat();
    let admins = admins.join(", ");
    let mut exports = format!(
        "      {{ service: \"$SRV.>\", accounts: [BUS, VIEWER], response_type: Stream }}
      {{ service: \"headwater.{name}.>\", accounts: [{admins}] }}\n"
    );
    if service.answers {
        exports.extend([format!(
            "      {{ service: \"inquiry.{name}.v1.asked\", accounts: [BUS, PURCHASES-INQUIRY] }}\n"
        )]);
    }
    for asker in services {
        let questions = asker.asks.iter().filter(|it| service.is_asked(it));
        let accounts = styles(asker);
        exports.extend(questions.map(|question| {
            format!("      {{ service: \"inquiry.{question}\", accounts: [{accounts}] }}\n")
        }));
    }
    if service.source {
        exports.extend([format!(
            "      {{ stream: \"{name}.*.>\", accounts: [VIEWER] }}\n"
        )]);
    }
    let mut imports = if service.source {
        publishing(name, is_first)
    } else {
        bus("$JS.API.INFO")
    };
    for source in services.iter().filter(|source| source.source) {
        imports += &reading(service, source);
    }
    if !service.asks.is_empty() {
        imports += "      # What users are called: names are asked for, not copied.\n";
        let questions = service.asks.iter().map(|question| asks(question));
        imports.extend(questions.map(|line| format!("      {line}\n")));
    }
    let password = name.replace('-', "_");
    format!(
        "  {upper} {{
    users: [ {{ user: {name}, password: ${password}_password }} ]
    limits: {{ max_connections: 64 }}
    exports: [\n{exports}    ]
    imports: [\n{imports}    ]
  }}\n"
    )
}

/// The accounts of a service: its own, and that of its style over the bus.
fn styles(service: &Service) -> String {
    let bus = service
        .styles
        .iter()
        .filter(|it| it.style == "request-reply");
    let names = bus.map(|style| &style.name);
    let accounts: Vec<_> = [&service.name]
        .into_iter()
        .chain(names)
        .map(|it| account(it))
        .collect();
    accounts.join(", ")
}

/// What a source imports to publish.
fn publishing(name: &str, is_explained: bool) -> String {
    let upper = account(name);
    let mut text = String::new();
    let mut add = |comment: &str, lines: &[String]| {
        if is_explained && !comment.is_empty() {
            text.push_str(comment);
        }
        text.extend(lines.iter().map(|line| &**line));
    };
    add(
        "      # Without this import, the server itself answers this account's API requests, before BUS does, with \"JetStream not
      # enabled for account\".\n",
        &["      { service: { account: SYS, subject: \"$SYS.REQ.SERVER.PING.STATSZ\" } }\n".to_owned()],
    );
    add("", &[bus("$JS.API.INFO")]);
    let of_stream = |stream: &str, what: &[&str]| -> Vec<String> {
        let subjects = what.iter().map(|what| what.replace("{}", stream));
        subjects
            .map(|subject| bus(&format!("$JS.API.{subject}")))
            .collect()
    };
    add(
        "      # Its events, and its stream.\n",
        &[bus(&format!("{name}.>"))],
    );
    let own = [
        "STREAM.INFO.{}",
        "STREAM.MSG.GET.{}",
        "DIRECT.GET.{}",
        "DIRECT.GET.{}.>",
    ];
    add("", &of_stream(&upper, &own));
    let schema = bus(&format!("$KV.headwater-schemas.{name}"));
    add("      # The schema of its events.\n", &[schema]);
    let schemas = ["STREAM.INFO.{}", "STREAM.MSG.GET.{}", "DIRECT.GET.{}.>"];
    add("", &of_stream("KV_headwater-schemas", &schemas));
    text
}

/// What a service imports to read `source`; empty if it does not read it.
fn reading(service: &Service, source: &Service) -> String {
    let (name, stream) = (&source.name, account(&source.name));
    let reads = service.consumers();
    let reads = reads.filter(|(_, sources)| sources.contains(name));
    let mut consumers = String::new();
    for (consumer, _) in reads {
        // An effect is never rebuilt.
        let is_rebuilt = service.projections.contains_key(consumer);
        let others: &[&str] = if is_rebuilt {
            &["-rebuild", "-verify"]
        } else {
            &[]
        };
        for end in [""].iter().chain(others) {
            for what in ["INFO", "RESET", "LEADER.STEPDOWN", "MSG.NEXT"] {
                consumers += &bus(&format!("$JS.API.CONSUMER.{what}.{stream}.{consumer}{end}"));
            }
        }
    }
    if consumers.is_empty() {
        return consumers;
    }
    if service.name == *name {
        return format!("      # Its consumers of its own events.\n{consumers}");
    }
    let info = bus(&format!("$JS.API.STREAM.INFO.{stream}"));
    format!(
        "      # Its consumers of {name}, and the source's outbox, for events that the stream lacks.
{info}{consumers}      {{ service: {{ account: {stream}, subject: \"headwater.{name}.events\" }} }}\n"
    )
}
