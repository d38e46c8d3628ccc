//! The summary: what runs where, and commands to try.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Serialize;

use crate::Output;
use crate::data::Data;
use crate::screen::{colours, paint};
use crate::seed::Demo;
use crate::service::Service;
use crate::system::Running;

/// What runs where, and commands to try, as text or JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// The address of the control room; it has a token. `None` without a control room.
    room: Option<String>,
    /// The page of a user who has ordered something.
    page: Option<Page>,
    services: BTreeMap<&'static str, Process>,
    nats: Process,
    data: PathBuf,
    to_try: Vec<Idea>,
}

#[derive(Debug, Serialize)]
struct Page {
    whose: String,
    url: String,
}

#[derive(Debug, Serialize)]
struct Process {
    url: String,
    /// The URL for health and metrics; `None` for the broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    admin_url: Option<String>,
    /// `None` for an external broker.
    pid: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Idea {
    what: String,
    /// Shell commands.
    commands: String,
}

impl Summary {
    pub(crate) fn new(
        running: Vec<Running>,
        nats: (String, Option<u32>),
        data: &Data,
        demo: Option<&Demo>,
        room: Option<String>,
    ) -> Self {
        let process = |running: Running| Process {
            url: running.url,
            admin_url: Some(running.admin_url),
            pid: Some(running.pid),
        };
        let services = running
            .into_iter()
            .map(|running| (running.service.name(), process(running)));
        let mut summary = Self {
            room,
            page: None,
            services: services.collect(),
            nats: Process {
                url: nats.0,
                admin_url: None,
                pid: nats.1,
            },
            data: data.folder().to_owned(),
            to_try: Vec::new(),
        };
        if let Some(Demo { user, product }) = demo {
            summary.page = Some(Page {
                url: format!(
                    "{}/users/{}",
                    summary.url(Service::named("purchases")),
                    user.id
                ),
                whose: user.name.clone(),
            });
            summary.to_try = vec![
                summary.order(&user.id, &user.name, &product.id, &product.title),
                summary.outage(&user.id),
            ];
        }
        summary.to_try.push(summary.import());
        summary
    }

    fn order(&self, user: &str, whose: &str, product: &str, title: &str) -> Idea {
        let (orders, purchases) = (
            self.url(Service::named("orders")),
            self.url(Service::named("purchases")),
        );
        Idea {
            what: format!("Order “{title}” for {whose}, and read an answer that includes it"),
            commands: format!(
                r#"after=$(curl -so /dev/null -w '%header{{headwater-position}}' {orders}/orders \
  -H 'content-type: application/json' -d '{{"user_id": "{user}", "product_ids": ["{product}"]}}')
curl -s "{purchases}/users/{user}/purchases?after=$after""#
            ),
        }
    }

    fn outage(&self, user: &str) -> Idea {
        let pids = [
            Service::named("users"),
            Service::named("products"),
            Service::named("orders"),
        ]
        .iter()
        .filter_map(|service| self.services.get(service.name())?.pid)
        .map(|pid| pid.to_string())
        .collect::<Vec<_>>()
        .join(" ");
        let purchases = self.url(Service::named("purchases"));
        Idea {
            what: "Freeze users, products and orders: purchases answers without them".to_owned(),
            commands: format!(
                "kill -STOP {pids}\n\
                 curl -s {purchases}/users/{user}/purchases\n\
                 kill -CONT {pids}"
            ),
        }
    }

    fn import(&self) -> Idea {
        let (users, nats) = (self.url(Service::named("users")), &self.nats.url);
        Idea {
            what: format!(
                "Import a user; with the NATS CLI, `nats --server {nats} sub '*.v1.>'` shows the event"
            ),
            commands: format!(
                r#"echo '{{"id": 1, "name": "Ann", "email": "ann@example.com"}}' |
  cargo run -q -p shop-import -- --users - --users-url {users}"#
            ),
        }
    }

    fn url(&self, service: Service) -> &str {
        &self.services[service.name()].url
    }

    /// Prints the summary on stdout.
    pub(crate) fn print(&self, format: Output) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        let printed = match format {
            Output::Text => {
                let colours = colours(&stdout);
                self.show(&mut stdout, colours)
            }
            Output::Json => {
                let json = serde_json::to_string(self).context("encode the summary")?;
                writeln!(stdout, "{json}")
            }
        };
        printed.context("print the summary")
    }

    fn show(&self, to: &mut impl io::Write, colours: bool) -> io::Result<()> {
        let title = "Headwater runs. Ctrl-C stops it; the data stays.";
        writeln!(to, "\n  {}\n", paint(colours, 1, title))?;
        let rows = self.rows(colours);
        let width = rows.iter().map(|(label, _)| label.chars().count()).max();
        let width = width.unwrap_or(0);
        for (label, value) in rows {
            writeln!(to, "  {label:width$}   {value}")?;
        }
        for Idea { what, commands } in &self.to_try {
            let commands = commands.replace('\n', "\n    ");
            writeln!(to, "\n  {what}\n\n    {}", paint(colours, 36, &commands))?;
        }
        writeln!(to)
    }

    fn rows(&self, colours: bool) -> Vec<(String, String)> {
        let mut rows = Vec::new();
        if let Some(room) = &self.room {
            rows.push(("Control room".to_owned(), paint(colours, 1, room)));
        }
        if let Some(Page { whose, url }) = &self.page {
            rows.push((whose.clone(), paint(colours, 1, url)));
            // The same page in the other styles, to compare.
            let path = url.trim_start_matches(self.url(Service::named("purchases")));
            for other in Service::all().filter(|service| !service.has_database()) {
                let label = format!("  by {}", other.style().unwrap_or_default());
                rows.push((label, format!("{}{path}", self.url(other))));
            }
        }
        rows.push((
            "All users".to_owned(),
            self.url(Service::named("purchases")).to_owned(),
        ));
        // The other styles have the API of purchases.
        let services = Service::all().filter(|service| service.has_database());
        rows.extend(services.map(|service| {
            let label = format!("API of {}", service.name());
            (label, format!("{}/docs", self.url(service)))
        }));
        rows.push(("NATS".to_owned(), self.nats.url.clone()));
        rows.push(("Data".to_owned(), self.data.display().to_string()));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_and_the_page_come_first_and_commands_are_shown_as_they_are() {
        let process = |port| Process {
            url: format!("http://127.0.0.1:{port}"),
            admin_url: Some(format!("http://127.0.0.1:{}", port + 1000)),
            pid: Some(port),
        };
        let ports = (8080..).map(process);
        let room = "http://127.0.0.1:8180/?token=1";
        let summary = Summary {
            room: Some(room.to_owned()),
            page: Some(Page {
                whose: "Ann".to_owned(),
                url: "http://127.0.0.1:8080/users/1".to_owned(),
            }),
            services: Service::all().map(Service::name).zip(ports).collect(),
            nats: process(4222),
            data: PathBuf::from("/data"),
            to_try: vec![Idea {
                what: "Try this".to_owned(),
                commands: "one\n  two".to_owned(),
            }],
        };
        let mut shown = Vec::new();
        summary.show(&mut shown, false).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let words = shown.split_whitespace();
        let mut addresses = words.filter(|word| word.starts_with("http"));
        assert_eq!(addresses.next(), Some(room));
        assert_eq!(addresses.next(), Some("http://127.0.0.1:8080/users/1"));
        assert!(
            shown.contains("  Try this\n\n    one\n      two\n"),
            "{shown}"
        );
        assert!(
            shown.contains("API of orders        http://127.0.0.1:8083/docs"),
            "{shown}"
        );
        let other = "  by request-reply   http://127.0.0.1:8085/users/1";
        assert!(shown.contains(other), "{shown}");
        assert!(!shown.contains('\x1b'), "no colours");
    }
}
