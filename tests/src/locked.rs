//! A broker that requires credentials and TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair as TlsKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::Process;

/// A broker, and the account whose users it accepts.
#[derive(Debug)]
pub struct Locked {
    folder: TempDir,
    port: u16,
    account: Account,
    process: Option<Process>,
}

struct Account(KeyPair);

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Account")
    }
}

impl Locked {
    /// Starts the broker; its certificate comes from a new root.
    pub fn start() -> Self {
        let folder = TempDir::new().expect("make a folder");
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("its address").port();
        let account = KeyPair::new_account();
        write_config(folder.path(), port, &account);
        let mut broker = Self {
            folder,
            port,
            account: Account(account),
            process: None,
        };
        broker.change_root();
        drop(free);
        broker.restart();
        broker
    }

    pub fn url(&self) -> String {
        format!("tls://127.0.0.1:{}", self.port)
    }

    /// The file of its root certificate.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root.pem")
    }

    /// From its next start on, the broker has a certificate from another root.
    pub fn change_root(&mut self) {
        let root_key = TlsKey::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&root_key).expect("a root");
        let issuer = Issuer::new(params, root_key);
        let key = TlsKey::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned()];
        let params = CertificateParams::new(names).expect("parameters");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let write = |name: &str, text: String| {
            fs::write(self.folder.path().join(name), text).expect("write a file");
        };
        write("root.pem", root.pem());
        write("server.pem", certificate.pem());
        write("server.key", key.serialize_pem());
    }

    /// Starts the broker; kills it first if it runs.
    pub fn restart(&mut self) {
        drop(self.process.take());
        let binary = broker::find(&|_| {}).expect("find nats-server");
        let mut command = Command::new(binary.path);
        command
            .arg("--config")
            .arg(self.folder.path().join("nats.conf"));
        let log = self.folder.path().join("nats.log");
        self.process = Some(Process::spawn(command, log));
    }

    /// Credentials that the broker accepts.
    pub fn credentials(&self) -> String {
        user_of(&self.account.0)
    }

    /// Credentials that the broker rejects.
    pub fn credentials_of_a_stranger(&self) -> String {
        user_of(&KeyPair::new_account())
    }
}

fn write_config(folder: &Path, port: u16, account: &KeyPair) {
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let none = -1;
    let limits = json!({
        "subs": none, "data": none, "payload": none, "imports": none, "exports": none,
        "wildcards": true, "conn": none, "leaf": none,
        "mem_storage": none, "disk_storage": none, "streams": none, "consumer": none,
    });
    let of_account = |limits: &Value| json!({"type": "account", "version": 2, "limits": limits});
    let mut system_limits = limits.clone();
    for limit in ["mem_storage", "disk_storage", "streams", "consumer"] {
        system_limits[limit] = json!(0);
    }
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\n\
         operator: {}\n\
         system_account: {system_id}\n\
         resolver: MEMORY\n\
         resolver_preload {{\n  {account_id}: {}\n  {system_id}: {}\n}}\n\
         jetstream {{ store_dir: \"{store}\", sync_interval: always }}\n\
         tls {{ cert_file: \"{folder}/server.pem\", key_file: \"{folder}/server.key\" }}\n",
        jwt(
            &operator,
            &operator,
            &json!({"type": "operator", "version": 2})
        ),
        jwt(&operator, account, &of_account(&limits)),
        jwt(&operator, &system, &of_account(&system_limits)),
        account_id = account.public_key(),
        system_id = system.public_key(),
        store = folder.join("store").display(),
        folder = folder.display(),
    );
    fs::write(folder.join("nats.conf"), text).expect("write the configuration");
}

fn user_of(account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let claims = json!({
        "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1,
    });
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, &user, &claims),
        user.seed().expect("a seed"),
    )
}

/// The claims of `issuer` about `subject`, as NATS wants them.
fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: &Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let body = json!({
        "jti": subject.public_key(), "iat": 1_700_000_000, "name": "test",
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": claims,
    });
    let signed = format!(
        "{}.{}",
        base64url(header.to_string().as_bytes()),
        base64url(body.to_string().as_bytes())
    );
    let signature = issuer.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", base64url(&signature))
}

fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
