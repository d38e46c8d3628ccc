//! `headwater completions` and `headwater man`: what a shell and `man` want to know of the tool.

use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;
use client::Common;
use serde_json::json;
use terminal::Exit;
use terminal::output::Format;

/// Print what a shell needs to complete command lines
///
/// For example `headwater completions bash > /etc/bash_completion.d/headwater`.
#[derive(Clone, Debug, clap::Args)]
pub struct Completions {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// Print the manual page, or write one a command to a folder
///
/// For example `headwater man /usr/local/share/man/man1`.
#[derive(Clone, Debug, clap::Args)]
pub struct Man {
    /// The folder; without it, the page of the tool itself is printed
    #[arg(value_name = "DIR")]
    pub folder: Option<PathBuf>,
}

pub(crate) fn completions(
    common: &Common,
    args: &Completions,
    mut tool: Command,
) -> anyhow::Result<Exit> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut tool, "headwater", &mut text);
    write(common, "script", text)
}

pub(crate) fn man(common: &Common, args: &Man, tool: Command) -> anyhow::Result<Exit> {
    let Some(folder) = &args.folder else {
        let mut text = Vec::new();
        clap_mangen::Man::new(tool)
            .render(&mut text)
            .context("make the page")?;
        return write(common, "page", text);
    };
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    clap_mangen::generate_to(tool, folder)
        .with_context(|| format!("write to {}", folder.display()))?;
    if common.output == Format::Json {
        return write(common, "folder", folder.display().to_string().into());
    }
    Ok(Exit::Done)
}

/// Writes a text as it is; in JSON, as the object's only member `name`.
fn write(common: &Common, name: &str, mut text: Vec<u8>) -> anyhow::Result<Exit> {
    if common.output == Format::Json {
        let object = json!({ name: String::from_utf8_lossy(&text) });
        text = format!("{object}\n").into();
    }
    match std::io::stdout().write_all(&text) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("write to stdout")
        }
        _ => Ok(Exit::Done),
    }
}
