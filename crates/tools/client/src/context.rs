//! The contexts of `nats context`, which hold the addresses and logins of clusters.

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use headwater::login::Login;
use serde::Deserialize;

/// The fields of a context that are used here.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Context {
    pub(crate) url: Text,
    token: Text,
    user: Text,
    password: Text,
    creds: File,
    nkey: File,
    pub(crate) cert: File,
    pub(crate) key: File,
    pub(crate) ca: File,
    pub(crate) tls_first: bool,
    pub(crate) inbox_prefix: Text,
    pub(crate) jetstream_domain: Text,
    pub(crate) jetstream_api_prefix: Text,
    // Supported by the NATS CLI, but not here.
    nsc: Text,
    socks_proxy: Text,
    user_jwt: Text,
}

/// Text; empty counts as none.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "Option<String>")]
pub(crate) struct Text(pub(crate) Option<String>);

/// A path, which may begin with `~/`; empty counts as none.
#[derive(Clone, Default, Deserialize)]
#[serde(from = "Text")]
pub(crate) struct File(pub(crate) Option<PathBuf>);

impl From<Option<String>> for Text {
    fn from(text: Option<String>) -> Self {
        Self(text.filter(|text| !text.is_empty()))
    }
}

impl From<Text> for File {
    fn from(Text(path): Text) -> Self {
        Self(path.map(
            |path| match (path.strip_prefix("~/"), env::var_os("HOME")) {
                (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
                _ => PathBuf::from(path),
            },
        ))
    }
}

impl Context {
    pub(crate) fn login(&self) -> Login {
        Login {
            creds: self.creds.0.clone(),
            nkey: self.nkey.0.clone(),
            user: self.user.0.clone(),
            password: self.password.0.clone(),
            token: self.token.0.clone(),
            ..Login::default()
        }
        .with_lone_user_as_token()
    }
}

/// The name of the context to use: the `named` one, or the selected one.
pub(crate) fn wanted(named: Option<&str>, is_unwanted: bool) -> anyhow::Result<Option<String>> {
    if let Some(name) = named.filter(|name| !name.is_empty()) {
        return Ok(Some(name.to_owned()));
    }
    let Some(folder) = folder().filter(|_| !is_unwanted) else {
        return Ok(None);
    };
    selected(&folder.join("context.txt"))
}

fn selected(file: &Path) -> anyhow::Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!(
                "read the selected NATS context from {}; fix the file, or ignore contexts with --no-context",
                file.display()
            )
        }),
    }
}

/// The context of this name.
pub(crate) fn load(name: &str) -> anyhow::Result<Context> {
    let folder = folder()
        .context("a NATS context was named, but neither XDG_CONFIG_HOME nor HOME is set")?;
    load_from(&folder.join("context"), name)
}

fn load_from(folder: &Path, name: &str) -> anyhow::Result<Context> {
    if name.contains(['/', '\\']) || name.starts_with('.') {
        bail!("{name} is not a valid name of a NATS context; `nats context ls` lists the contexts");
    }
    let file = folder.join(format!("{name}.json"));
    let text = match std::fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(unknown(folder, name)),
        Err(error) => {
            return Err(error).with_context(|| format!("read the NATS context {}", file.display()));
        }
    };
    let context: Context = serde_json::from_str(&text).with_context(|| {
        format!(
            "the NATS context {} cannot be read; fix it with `nats context edit {name}`, or ignore it with --no-context",
            file.display()
        )
    })?;
    let unsupported = [
        ("nsc", &context.nsc),
        ("socks_proxy", &context.socks_proxy),
        ("user_jwt", &context.user_jwt),
    ];
    match unsupported.iter().find(|(_, value)| value.0.is_some()) {
        Some((field, _)) => bail!(
            "the NATS context {name} has `{field}`, which this tool does not support; create a context with a credentials file, or use --server and --creds with --no-context"
        ),
        None => Ok(context),
    }
}

/// The error for an unknown context, with the names of known ones.
fn unknown(folder: &Path, name: &str) -> anyhow::Error {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = files
        .filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    let known = match names.as_slice() {
        [] => "there are none".to_owned(),
        names => format!("known: {}", names.join(", ")),
    };
    anyhow!(
        "there is no NATS context {name} in {}, {known}; create it with `nats context save {name}`, select another with `nats context select`, or ignore contexts with --no-context",
        folder.display()
    )
}

/// Where the NATS CLI keeps its files.
fn folder() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let config = set("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(set("HOME")?).join(".config")));
    Some(config?.join("nats"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(folder: &Path, name: &str) -> String {
        let loaded = load_from(folder, name);
        format!("{:#}", loaded.err().expect("refused"))
    }

    #[test]
    fn a_context_is_read_and_its_empty_fields_are_none() {
        let folder = tempfile::tempdir().expect("make a folder");
        let json = r#"{"description": "x", "url": "nats://a", "token": "", "user": "eve",
            "password": "p", "creds": "", "color_scheme": "", "tls_first": true}"#;
        std::fs::write(folder.path().join("shop.json"), json).expect("write");
        let context = load_from(folder.path(), "shop").expect("a context");
        assert_eq!(context.url.0.as_deref(), Some("nats://a"));
        let login = context.login();
        assert_eq!((login.user.as_deref(), login.token), (Some("eve"), None));
        assert!(login.creds.is_none() && context.tls_first);
    }

    #[test]
    fn a_user_alone_is_a_token_as_in_the_nats_cli() {
        let context: Context = serde_json::from_str(r#"{"user": "s3cret"}"#).expect("JSON");
        let login = context.login();
        assert_eq!((login.user, login.token.as_deref()), (None, Some("s3cret")));
    }

    #[test]
    fn what_is_wrong_with_a_context_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().expect("make a folder");
        assert!(refused(folder.path(), "shop").contains("there are none"));
        std::fs::write(folder.path().join("prod.json"), "{").expect("write");
        std::fs::write(folder.path().join("old.json"), r#"{"nsc": "nsc://a"}"#).expect("write");
        let error = refused(folder.path(), "shop");
        assert!(error.contains("known: old, prod") && error.contains("nats context save shop"));
        assert!(refused(folder.path(), "prod").contains("nats context edit prod"));
        assert!(refused(folder.path(), "old").contains("`nsc`"));
        assert!(refused(folder.path(), "../shop").contains("not a valid name"));
    }

    #[test]
    fn which_context_is_selected_may_be_unsaid() {
        let folder = tempfile::tempdir().expect("make a folder");
        let file = folder.path().join("context.txt");
        assert_eq!(selected(&file).expect("none"), None);
        std::fs::write(&file, "prod\n").expect("write");
        assert_eq!(selected(&file).expect("one"), Some("prod".to_owned()));
        assert!(selected(folder.path()).is_err(), "a folder is not a file");
    }
}
