//! The files of `deploy/` that name every service.
//!
//! Most are written by hand, and only the lines that list services follow from the list: these are
//! found by how they begin. The others are made from `templates/`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::accounts::{self, account};
use crate::service::{Service, services};

/// A service in compose.yaml.
const CONTAINER: &str = r#"  {name}:
    <<: *service
    command: [headwater-{name}]
    environment: *environment
    volumes: ["{name}:/data"]
    networks: [{name}]
    ports: ["127.0.0.1:${HEADWATER_{NAME}_PORT:-{port}}:8080"]

"#;

const SERVICE: &str = include_str!("../templates/headwater-NAME.service");
const SOCKET: &str = include_str!("../templates/headwater-NAME.socket");
const ADMIN_SOCKET: &str = include_str!("../templates/headwater-NAME-admin.socket");

/// The files, as they should be: paths below `root`, and texts.
///
/// # Errors
/// The list cannot be read, or a file lacks a line that lists services.
pub fn files(root: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let shop = Shop(services(root)?);
    let mut files = BTreeMap::from([
        (
            "deploy/nats/accounts.conf".to_owned(),
            accounts::file(&shop.0),
        ),
        ("deploy/nats/plan.json".to_owned(), shop.plan()),
    ]);
    for service in &shop.0 {
        let unit = format!("deploy/systemd/units/headwater-{}", service.name);
        files.insert(format!("{unit}.service"), filled(SERVICE, service));
        files.insert(format!("{unit}.socket"), filled(SOCKET, service));
        files.insert(
            format!("{unit}-admin.socket"),
            filled(ADMIN_SOCKET, service),
        );
        // Written by hand: the settings that only this service has.
        let path = format!("deploy/systemd/etc/{}.env", service.name);
        let first = format!(
            "# Settings of headwater-{} only; headwater.env lists the common ones.\n",
            service.name
        );
        let kept = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
        let kept = kept.strip_prefix(&first).unwrap_or(&kept);
        files.insert(path, format!("{first}{kept}"));
    }
    for (path, lines) in shop.lists() {
        let path = format!("deploy/{path}");
        let text = std::fs::read_to_string(root.join(&path));
        let mut text = text.with_context(|| format!("read {path}"))?;
        for list in lines {
            text = list.put_into(&text).with_context(|| format!("in {path}"))?;
        }
        files.insert(path, text);
    }
    Ok(files)
}

/// Lines that list services.
struct List {
    /// How the first of them begins.
    from: &'static str,
    /// How the line after the last of them begins; `None`: there is one line only; empty: the rest
    /// of the file.
    to: Option<&'static str>,
    text: String,
}

impl List {
    fn line(from: &'static str, text: String) -> Self {
        Self {
            from,
            to: None,
            text,
        }
    }

    fn lines(from: &'static str, to: &'static str, text: String) -> Self {
        Self {
            from,
            to: Some(to),
            text,
        }
    }

    /// `text` with these lines; a single line is replaced wherever it is.
    fn put_into(&self, text: &str) -> anyhow::Result<String> {
        let mut lines = text.lines();
        let mut out = String::new();
        let mut found = false;
        while let Some(line) = lines.next() {
            let is_end = found && self.to.is_some();
            if is_end || !line.starts_with(self.from) {
                writeln!(out, "{line}")?;
                continue;
            }
            found = true;
            out.push_str(&self.text);
            if !self.text.ends_with('\n') {
                out.push('\n');
            }
            if let Some(to) = self.to {
                let after = lines.find(|line| !to.is_empty() && line.starts_with(to));
                ensure!(
                    to.is_empty() || after.is_some(),
                    "no line begins with `{to}`"
                );
                if let Some(after) = after {
                    writeln!(out, "{after}")?;
                }
            }
        }
        ensure!(found, "no line begins with `{}`", self.from);
        Ok(out)
    }
}

fn filled(template: &str, service: &Service) -> String {
    template
        .replace("{name}", &service.name)
        .replace("{does}", &service.does)
        .replace("{port}", &service.port.to_string())
        .replace("{admin_port}", &(service.port + 1000).to_string())
}

/// The services, in the order in which `deploy/` has them.
struct Shop(Vec<Service>);

impl Shop {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|service| &*service.name).collect()
    }

    fn sources(&self) -> impl Iterator<Item = &Service> {
        self.0.iter().filter(|service| service.source)
    }

    fn by_port(&self) -> Vec<&Service> {
        let mut services: Vec<_> = self.0.iter().collect();
        services.sort_by_key(|service| service.port);
        services
    }

    /// `text` for each service, in which `{name}` and `{does}` are filled.
    fn each(&self, text: &str) -> String {
        self.0.iter().map(|service| filled(text, service)).collect()
    }

    fn plan(&self) -> String {
        let quoted = |names: Vec<&str>| {
            let names = names.iter().map(|name| format!("\"{name}\""));
            names.collect::<Vec<_>>().join(", ")
        };
        let sources = quoted(self.sources().map(|source| &*source.name).collect());
        let services = self.by_port();
        let projections = services.iter().flat_map(|service| &service.projections);
        let projections = projections.map(|(name, sources)| {
            let sources = quoted(sources.iter().map(|source| &**source).collect());
            format!("    \"{name}\": [{sources}]")
        });
        let projections = projections.collect::<Vec<_>>().join(",\n");
        format!("{{\n  \"sources\": [{sources}],\n  \"projections\": {{\n{projections}\n  }}\n}}\n")
    }

    fn lists(&self) -> Vec<(&'static str, Vec<List>)> {
        let names = self.names();
        let spaced = names.join(" ");
        let (first, others) = names.split_first().expect("the shop has services");
        let units = |end: &str| {
            let units = names.iter().map(|name| format!("headwater-{name}{end}"));
            units.collect::<Vec<_>>().join(" ")
        };
        let listed = names.join(", ");
        let loops = || List::line("for service in ", format!("for service in {spaced}; do"));
        let users = names.iter().map(|name| format!("-{name}"));
        let users = users.collect::<Vec<_>>().join(", ");
        vec![
            (
                "nats/secrets.sh",
                vec![List::line(
                    "users=\"",
                    format!("users=\"{spaced} purchases-composition purchases-inquiry viewer operator admin\""),
                )],
            ),
            (
                "systemd/install.sh",
                vec![
                    List::line("programs=\"", format!("programs=\"headwater shop-import {}\"", units(""))),
                    List::line(
                        "    echo \"  users  ",
                        format!("    echo \"  users             headwater{users}, -nats\""),
                    ),
                ],
            ),
            ("systemd/setup", vec![loops()]),
            ("deb/build", vec![loops()]),
            ("systemd/sysusers.conf", vec![List::lines("u headwater-", "", self.users())]),
            (
                "systemd/units/headwater.target",
                vec![
                    List::line(
                        "Description=",
                        format!("Description=Headwater: {listed} and their broker"),
                    ),
                    List::line("Wants=headwater-users", format!("Wants={}", units(".service"))),
                    List::line("After=headwater-users", format!("After={}", units(".service"))),
                ],
            ),
            ("docker/build", vec![List::line("services=(", format!("services=({spaced})"))]),
            (
                "docker/check",
                vec![
                    List::lines("export HEADWATER_NATS_PORT", "project=", self.check_ports()),
                    List::line("for other in ", format!("for other in {}; do", others.join(" "))),
                    List::line(
                        "ids=$(compose ps --quiet ",
                        format!("ids=$(compose ps --quiet {first} {} composition inquiry)", others.join(" ")),
                    ),
                ],
            ),
            ("compose.yaml", self.compose()),
            (
                "prometheus/prometheus.yml",
                vec![List::lines("scrape_configs:", "", format!("scrape_configs:\n{}", self.each(
                    "  - job_name: {name}\n    static_configs:\n      - targets: ['127.0.0.1:{admin_port}']\n        labels: { system: headwater }\n",
                )))],
            ),
        ]
    }

    fn users(&self) -> String {
        let names = self.names();
        let longest = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, what) in names
            .iter()
            .map(|name| (*name, format!("Headwater {name}")))
            .chain([("nats", "Headwater's broker".to_owned())])
        {
            writeln!(text, "u headwater-{name:longest$} - \"{what}\"").expect("a String takes it");
        }
        text
    }

    /// Ports for a test of the containers: 10000 after the usual ones.
    fn check_ports(&self) -> String {
        let mut all = vec![("NATS".to_owned(), 4222)];
        let services = self.by_port();
        all.extend(services.iter().map(|it| (account(&it.name), it.port)));
        // In compose.yaml, the styles have shorter names.
        let styles = services.iter().flat_map(|service| {
            let short = |name: &str| {
                name.trim_start_matches(&format!("{}-", service.name))
                    .to_uppercase()
            };
            service
                .styles
                .iter()
                .map(move |style| (short(&style.name), style.port))
        });
        all.extend(styles);
        let all: Vec<String> = all
            .into_iter()
            .map(|(name, port)| format!("HEADWATER_{name}_PORT={}", 10_000 + port))
            .collect();
        let lines: Vec<String> = all.chunks(3).map(|chunk| chunk.join(" ")).collect();
        format!("export {}", lines.join(" \\\n    "))
    }

    fn compose(&self) -> Vec<List> {
        let listed = self.names().join(", ");
        let hosts = self.names().join(",");
        let mut services = String::new();
        for service in &self.0 {
            services += &filled(CONTAINER, service).replace("{NAME}", &account(&service.name));
        }
        vec![
            List::line(
                "  HEADWATER_PUBLIC_HOST: ",
                format!(
                    "  HEADWATER_PUBLIC_HOST: \"{hosts},composition,inquiry,${{HEADWATER_PUBLIC_HOST:-localhost}}\""
                ),
            ),
            List::line(
                "    networks: [users, products, orders, ",
                format!("    networks: [{listed}, inquiry]"),
            ),
            List::lines("  users:", "  # Asks the three sources", services),
            List::lines(
                "networks:",
                "",
                format!(
                    "networks:\n{}  inquiry: {{}}\n\nvolumes:\n  broker: {{}}\n{}",
                    self.each("  {name}: {}\n"),
                    self.each("  {name}: {}\n"),
                ),
            ),
        ]
    }
}
