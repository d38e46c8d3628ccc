//! Deliveries to a receiver that keeps what it gets.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use headwater_telemetry::Clock;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use super::Webhook;
use super::connect::{Networks, Receiver, Resolver, connector};
use super::secret::{self, Secret, Secrets};
use crate::Outcome;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEXT: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A request that was received.
#[derive(Debug, Clone)]
struct Got {
    target: String,
    headers: BTreeMap<String, String>,
    body: String,
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<(usize, Vec<Got>)>>);

impl Kept {
    fn connections(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn all(&self) -> Vec<Got> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.1.clone()
    }
}

async fn receive<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str) -> Option<Got> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let target = lines.next()?.to_owned();
            let headers = lines.filter_map(|line| line.split_once(": "));
            let headers: BTreeMap<String, String> = headers
                .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
                .collect();
            if body.len() >= headers["content-length"].parse().unwrap() {
                stream.write_all(answer.as_bytes()).await.ok()?;
                let body = body.to_owned();
                return Some(Got {
                    target,
                    headers,
                    body,
                });
            }
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// A receiver that answers each request with `answer`. Returns its port.
async fn receiver(answer: &'static str, tls: Option<TlsAcceptor>) -> (u16, Kept) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Kept::default();
    let keep = kept.clone();
    #[expect(clippy::disallowed_methods, reason = "the test owns the receiver")]
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            keep.0.lock().unwrap_or_else(PoisonError::into_inner).0 += 1;
            let got = match &tls {
                None => receive(stream, answer).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => receive(stream, answer).await,
                    Err(_) => None,
                },
            };
            let mut kept = keep.0.lock().unwrap_or_else(PoisonError::into_inner);
            kept.1.extend(got);
        }
    });
    (port, kept)
}

/// A webhook to `url`, with a file for its secrets.
fn webhook(url: &str, networks: Networks, secrets: &[&str]) -> (Webhook, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secrets");
    std::fs::write(&file, secrets.join("\n")).unwrap();
    let webhook = Webhook {
        receiver: Receiver::parse(url, networks).unwrap(),
        secrets: Secrets(file),
        clock: Clock::from_fn(|| UNIX_EPOCH + Duration::from_secs(1_614_265_330)),
    };
    (webhook, folder)
}

/// What `answer` leads to.
async fn outcome(answer: &'static str) -> Outcome {
    let (port, _) = receiver(answer, None).await;
    let url = format!("http://127.0.0.1:{port}/");
    let (webhook, _folder) = webhook(&url, Networks::Any, &[SECRET]);
    webhook.post("id", "{}".to_owned()).await
}

fn reason(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Retry { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

/// The signature was made with Python's `hmac`.
#[test]
fn a_signature_is_that_of_the_specification_for_each_secret() {
    let secrets = [SECRET, NEXT].map(|text| Secret::parse(text).unwrap());
    let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    let body = r#"{"test": 2432232314}"#;
    let first = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let sign = |secrets| secret::sign(secrets, id, "1614265330", body);
    assert_eq!(sign(&secrets[..1]), first);
    let both = sign(&secrets);
    let (old, new) = both.split_once(' ').unwrap();
    assert_eq!(old, first);
    assert!(new.starts_with("v1,") && new != first, "{new}");
}

#[tokio::test]
async fn a_delivery_has_the_id_the_time_and_a_signature_of_both_and_the_body() {
    let (port, kept) = receiver("HTTP/1.1 204 No Content\r\n\r\n", None).await;
    let url = format!("http://127.0.0.1:{port}/hooks?of=us");
    let (webhook, folder) = webhook(&url, Networks::Any, &[SECRET]);
    let (id, body) = ("orders:e:7:orders-webhook", r#"{"type":"order.placed"}"#);
    assert_eq!(webhook.post(id, body.to_owned()).await, Outcome::Done);
    // Another secret needs no restart.
    std::fs::write(folder.path().join("secrets"), [NEXT, SECRET].join("\n\n")).unwrap();
    assert_eq!(webhook.post(id, body.to_owned()).await, Outcome::Done);
    let all = kept.all();
    let secrets = [NEXT, SECRET].map(|text| Secret::parse(text).unwrap());
    for (got, secrets) in all.iter().zip([&secrets[1..], &secrets]) {
        assert_eq!(got.target, "POST /hooks?of=us HTTP/1.1");
        assert_eq!(got.body, body);
        assert_eq!(got.headers["host"], format!("127.0.0.1:{port}"));
        assert_eq!(got.headers["content-type"], "application/json");
        assert_eq!(got.headers["webhook-id"], id);
        assert_eq!(got.headers["webhook-timestamp"], "1614265330");
        let signature = secret::sign(secrets, id, "1614265330", body);
        assert_eq!(got.headers["webhook-signature"], signature);
    }
    assert_eq!(all.len(), 2);
}

#[tokio::test]
async fn the_answer_decides_what_becomes_of_a_delivery() {
    assert_eq!(outcome("HTTP/1.1 200 OK\r\n\r\n").await, Outcome::Done);
    let gone = outcome("HTTP/1.1 410 Gone\r\n\r\n").await;
    assert!(matches!(gone, Outcome::SwitchOff(_)), "{gone:?}");
    for (answer, why, after) in [
        ("HTTP/1.1 500 No\r\n\r\n", "500 Internal", None),
        ("HTTP/1.1 404 No\r\n\r\n", "404 Not Found", None),
        (
            "HTTP/1.1 307 There\r\nLocation: http://127.0.0.1/\r\n\r\n",
            "307",
            None,
        ),
        (
            "HTTP/1.1 503 Busy\r\nRetry-After: 120\r\n\r\n",
            "503",
            Some(120),
        ),
        (
            "HTTP/1.1 429 Busy\r\nRetry-After: Thu, 25 Feb 2021 15:02:20 GMT\r\n\r\n",
            "429",
            Some(10),
        ),
        (
            "HTTP/1.1 429 Busy\r\nRetry-After: soon\r\n\r\n",
            "429",
            None,
        ),
        ("", "connection closed", None),
        ("nonsense\r\n\r\n", "invalid HTTP", None),
    ] {
        let outcome = outcome(answer).await;
        assert!(reason(&outcome).contains(why), "{answer:?}: {outcome:?}");
        let Outcome::Retry { after: found, .. } = outcome else {
            panic!("{answer:?}");
        };
        assert_eq!(found, after.map(Duration::from_secs), "{answer:?}");
    }
}

/// An answer without an end, in its head or its body, takes no more memory than its head may.
#[tokio::test]
async fn an_answer_without_an_end_is_cut_off() {
    let endless: &'static str =
        Box::leak(format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(100_000)).into());
    let outcome = outcome(endless).await;
    assert!(reason(&outcome).contains("too large"), "{outcome:?}");
    let body: &'static str = Box::leak(
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n{}",
            "a".repeat(9_000)
        )
        .into(),
    );
    assert_eq!(self::outcome(body).await, Outcome::Done);
}

#[test]
fn an_address_is_https_on_a_public_host_unless_private_networks_are_allowed() {
    for (url, why) in [
        ("hooks.example.com", "relative URL"),
        ("http://hooks.example.com/", "must begin with https://"),
        ("ftp://hooks.example.com/", "must begin with https://"),
        ("https://ada:secret@hooks.example.com/", "no user name"),
        ("https://localhost/", "private network"),
        ("https://intranet/", "private network"),
        ("https://127.0.0.1/", "private network"),
        ("https://0x7f.1/", "private network"),
        ("https://10.0.0.1/", "private network"),
        ("https://169.254.169.254/latest", "private network"),
        ("https://[::1]/", "private network"),
        ("https://[fd00::1]/", "private network"),
        ("https://[fe80::1]/", "private network"),
        ("https://[::ffff:192.168.0.1]/", "private network"),
        ("https://[64:ff9b::a00:1]/", "private network"),
    ] {
        let refused = Receiver::parse(url, Networks::Public).unwrap_err();
        assert!(refused.to_string().contains(why), "{url}: {refused}");
    }
    assert!(Receiver::parse("https://hooks.example.com/", Networks::Public).is_ok());
    assert!(Receiver::parse("http://localhost:9/", Networks::Any).is_ok());
}

#[test]
fn secrets_are_at_least_24_bytes_and_are_not_shown() {
    let short = format!("whsec_{}", "AAAA".repeat(7));
    for wrong in [
        "",
        "secret",
        "whsec_",
        &short,
        SECRET.trim_start_matches("whsec_"),
    ] {
        let (webhook, _folder) = webhook("http://localhost/", Networks::Any, &[wrong]);
        let refused = webhook.secrets.read().unwrap_err();
        assert!(refused.to_string().contains("openssl rand"), "{refused}");
    }
    let (webhook, _folder) = webhook("http://localhost/", Networks::Any, &[SECRET]);
    let shown = format!("{webhook:?} {:?}", webhook.secrets.read().unwrap());
    assert!(!shown.contains("MfKQ"), "{shown}");
}

/// A resolver that gives one list of addresses after another, and the last again and again.
fn resolver(answers: &[&[&str]], port: u16) -> Resolver {
    let mut answers: Vec<Vec<std::net::SocketAddr>> = answers
        .iter()
        .map(|answer| {
            let addresses = answer
                .iter()
                .map(|it| it.parse::<std::net::IpAddr>().unwrap());
            addresses.map(|ip| (ip, port).into()).collect()
        })
        .rev()
        .collect();
    let answers = Mutex::new(move || match answers.len() {
        1 => answers[0].clone(),
        _ => answers.pop().unwrap(),
    });
    Resolver(Arc::new(move |_, _| {
        let found = answers.lock().unwrap_or_else(PoisonError::into_inner)();
        Box::pin(async { Ok(found) })
    }))
}

fn acceptor() -> (TlsAcceptor, RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["hooks.example.com".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let certificate = made.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), roots)
}

#[tokio::test]
async fn a_receiver_must_have_the_certificate_of_its_name() {
    let (tls, roots) = acceptor();
    let (port, kept) = receiver("HTTP/1.1 200 OK\r\n\r\n", Some(tls)).await;
    let to = |name: &str, roots: &RootCertStore| {
        let url = format!("https://{name}/");
        let (mut webhook, folder) = webhook(&url, Networks::Any, &[SECRET]);
        webhook.receiver.resolver = resolver(&[&["127.0.0.1"]], port);
        webhook.receiver.tls = Some(connector(roots.clone()).unwrap());
        (webhook, folder)
    };
    let (known, _folder) = to("hooks.example.com", &roots);
    assert_eq!(known.post("id", "{}".to_owned()).await, Outcome::Done);
    let (other, _folder) = to("other.example.com", &roots);
    let refused = other.post("id", "{}".to_owned()).await;
    assert!(reason(&refused).contains("certificate"), "{refused:?}");
    let (untrusted, _folder) = to("hooks.example.com", &acceptor().1);
    let refused = untrusted.post("id", "{}".to_owned()).await;
    assert!(reason(&refused).contains("certificate"), "{refused:?}");
    assert_eq!(kept.all().len(), 1);
}

/// Also if it did not at an earlier attempt (DNS rebinding).
#[tokio::test]
async fn a_name_that_leads_into_a_private_network_is_not_connected_to() {
    let (port, kept) = receiver("HTTP/1.1 200 OK\r\n\r\n", None).await;
    let (mut webhook, _folder) = webhook("https://hooks.example.com/", Networks::Public, &[SECRET]);
    webhook.receiver.tls = None;
    for private in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "fd00::1",
        "169.254.169.254",
    ] {
        webhook.receiver.resolver = resolver(&[&[private]], port);
        let refused = webhook.post("id", "{}".to_owned()).await;
        assert!(
            reason(&refused).contains("in a private network"),
            "{refused:?}"
        );
    }
    // At first it has none.
    webhook.receiver.resolver = resolver(&[&[], &["127.0.0.1"]], port);
    let none = webhook.post("id", "{}".to_owned()).await;
    assert!(reason(&none).contains("has no address"), "{none:?}");
    let refused = webhook.post("id", "{}".to_owned()).await;
    assert!(
        reason(&refused).contains("in a private network"),
        "{refused:?}"
    );
    assert_eq!(kept.connections(), 0);

    webhook.receiver.networks = Networks::Any;
    assert_eq!(webhook.post("id", "{}".to_owned()).await, Outcome::Done);
    assert_eq!(kept.connections(), 1, "the receiver counts");
}

/// The name is looked up once per attempt, so what was checked is what is connected to.
#[tokio::test]
async fn a_name_is_looked_up_once_for_each_attempt() {
    let (port, kept) = receiver("HTTP/1.1 200 OK\r\n\r\n", None).await;
    let (mut webhook, _folder) = webhook("http://hooks.example.com/", Networks::Any, &[SECRET]);
    webhook.receiver.resolver = resolver(&[&["127.0.0.1"], &[]], port);
    assert_eq!(webhook.post("id", "{}".to_owned()).await, Outcome::Done);
    let none = webhook.post("id", "{}".to_owned()).await;
    assert!(reason(&none).contains("has no address"), "{none:?}");
    assert_eq!(kept.connections(), 1);
}
