//! Writes the enumeration of the shop's services from the list in their manifests.

use std::fmt::Write as _;
use std::path::Path;

/// A program as it runs under one name.
struct Running {
    /// The variant: `RequestReply`.
    variant: String,
    docs: String,
    name: String,
    /// The package.
    package: String,
    port: u16,
    style: Option<String>,
}

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.expect("the repository");
    println!(
        "cargo::rerun-if-changed={}",
        root.join("crates/shop").display()
    );
    let services = shop::services(root).expect("the services of the shop");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets it");
    let file = Path::new(&out).join("service.rs");
    std::fs::write(file, enumeration(&services).expect("a text")).expect("write");
}

fn enumeration(services: &[shop::Service]) -> Result<String, std::fmt::Error> {
    let (mut running, mut all, mut sources, mut styles) = (vec![], vec![], vec![], vec![]);
    for service in services {
        let package = service.name.clone();
        let variant = camel(&package);
        all.push(variant.clone());
        if service.source {
            sources.push(variant.clone());
        }
        if !service.styles.is_empty() {
            styles.push(variant.clone());
        }
        running.push(Running {
            docs: format!("It {}.", service.does),
            name: package.clone(),
            port: service.port,
            style: None,
            variant,
            package: package.clone(),
        });
        for style in &service.styles {
            let variant = camel(&style.style);
            styles.push(variant.clone());
            running.push(Running {
                docs: format!("The service {package} in the style {}.", style.style),
                name: style.name.clone(),
                port: style.port,
                style: Some(style.style.clone()),
                variant,
                package: package.clone(),
            });
        }
    }
    let mut out = String::new();
    writeln!(out, "/// A service of the shop, in one of its styles.")?;
    writeln!(
        out,
        "#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]"
    )?;
    writeln!(out, "pub enum Service {{")?;
    for Running { docs, variant, .. } in &running {
        writeln!(out, "    /// {docs}\n    {variant},")?;
    }
    let lint = "#[expect(clippy::match_same_arms, reason = \"one line for each service\")]";
    writeln!(out, "}}\n\n{lint}\nimpl Service {{")?;
    for (name, docs, variants) in [
        ("ALL", "The services, each in its usual style.", &all),
        ("SOURCES", "The services that publish events.", &sources),
        (
            "STYLES",
            "The services with several styles, in all of them.",
            &styles,
        ),
    ] {
        let own: Vec<String> = variants.iter().map(|it| format!("Self::{it}")).collect();
        let (len, own) = (own.len(), own.join(", "));
        writeln!(
            out,
            "    /// {docs}\n    pub const {name}: [Self; {len}] = [{own}];\n"
        )?;
    }
    methods(&mut out, &running)?;
    writeln!(out, "}}\n")?;
    let services = services.iter().map(|service| &*service.name);
    let units: Vec<String> = ["nats"].into_iter().chain(services).map(unit).collect();
    let (len, units) = (units.len(), units.join(", "));
    writeln!(
        out,
        "/// The systemd units of the broker and of the services."
    )?;
    writeln!(out, "pub const UNITS: [&str; {len}] = [{units}];")?;
    Ok(out)
}

/// The methods of the enumeration.
fn methods(out: &mut String, running: &[Running]) -> std::fmt::Result {
    let text = |text: &str| format!("{text:?}");
    let style = |it: &Running| match &it.style {
        Some(style) => format!("Some({style:?})"),
        None => "None".to_owned(),
    };
    let names = |it: &Running| text(&it.name);
    let programs = |it: &Running| text(&format!("headwater-{}", it.package));
    let ports = |it: &Running| it.port.to_string();
    method(
        out,
        running,
        "pub const fn name(self) -> &'static str",
        "Its name.",
        names,
    )?;
    let docs = "The shipped program.";
    method(
        out,
        running,
        "pub const fn program(self) -> &'static str",
        docs,
        programs,
    )?;
    let docs = "The port of its manifest; health and metrics have the one 1000 after it.";
    method(out, running, "pub const fn port(self) -> u16", docs, ports)?;
    let docs = "Its value of `--style`, if not the usual one: then it keeps no database.";
    method(
        out,
        running,
        "pub(super) const fn style(self) -> Option<&'static str>",
        docs,
        style,
    )?;
    Ok(())
}

fn unit(name: &str) -> String {
    format!("\"headwater-{name}.service\"")
}

/// Writes a method with one value for each variant.
fn method(
    out: &mut String,
    running: &[Running],
    signature: &str,
    docs: &str,
    value: impl Fn(&Running) -> String,
) -> std::fmt::Result {
    writeln!(
        out,
        "    /// {docs}\n    {signature} {{\n        match self {{"
    )?;
    for it in running {
        writeln!(out, "            Self::{} => {},", it.variant, value(it))?;
    }
    writeln!(out, "        }}\n    }}\n")
}

/// `request-reply` as `RequestReply`.
fn camel(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let (first, rest) = word.split_at(1);
        first.to_uppercase() + rest
    });
    words.collect()
}
