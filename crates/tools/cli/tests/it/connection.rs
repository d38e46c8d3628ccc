//! The server and the login: flags override the environment, which overrides a context.

use headwater::health::State;
use headwater::{Bus, bus};

use crate::locked::Locked;
use crate::source::eventually;
use crate::tool::{self, Ended};

const USERS: &str = r#"authorization { users: [{ user: eve, password: "s3cret" }] }"#;

async fn run(args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let line = [&["dead-letter", "list"], args].concat();
    tool::start(&line, environment).end().await
}

/// It was logged in; there are no services and so no letters to list.
#[track_caller]
fn assert_in(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, "there are none\n", "{ended:?}");
}

#[track_caller]
fn assert_out(ended: &Ended) {
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("login refused: "), "{ended:?}");
}

#[tokio::test]
async fn a_user_may_come_from_flags_the_environment_or_the_url() {
    let locked = Locked::start(USERS).await;
    let url = format!("nats://127.0.0.1:{}", locked.port);
    let server = format!("--server={url}");
    assert_out(&run(&[&server], &[]).await);
    assert_out(&run(&[&server, "--user=eve", "--password=wrong"], &[]).await);
    assert_in(&run(&[&server, "--user=eve", "--password=s3cret"], &[]).await);
    let environment = [
        ("NATS_URL", &*url),
        ("NATS_USER", "eve"),
        ("NATS_PASSWORD", "s3cret"),
    ];
    assert_in(&run(&[], &environment).await);
    let with_user = format!("--nats-url=nats://eve:s3cret@127.0.0.1:{}", locked.port);
    assert_in(&run(&[&with_user], &[]).await);
    assert_in(&run(&[&server, "--user=eve"], &[("NATS_PASSWORD", "s3cret")]).await);
}

#[tokio::test]
async fn a_flag_puts_aside_another_login_in_the_environment() {
    let locked = Locked::start(USERS).await;
    let url = format!("nats://127.0.0.1:{}", locked.port);
    let environment = [("NATS_URL", &*url), ("NATS_CREDS", "/no/such/file")];
    let ended = run(&[], &environment).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("/no/such/file"), "{ended:?}");
    assert_in(&run(&["--user=eve", "--password=s3cret"], &environment).await);
}

#[tokio::test]
async fn a_token_may_be_in_the_url_and_is_not_shown() {
    let locked = Locked::start("authorization { token: \"s3cret\" }").await;
    let port = locked.port;
    assert_in(&run(&[&format!("--server=nats://s3cret@127.0.0.1:{port}")], &[]).await);
    let server = format!("--server=127.0.0.1:{port}");
    assert_in(&run(&[&server, "--token=s3cret"], &[]).await);
    let ended = run(&[&format!("--server=nats://hidden@127.0.0.1:{port}")], &[]).await;
    assert_out(&ended);
    assert!(!ended.stderr.contains("hidden"), "{ended:?}");
}

#[tokio::test]
async fn an_nkey_is_read_from_its_file() {
    let pair = nkeys::KeyPair::new_user();
    let users = format!(
        "authorization {{ users: [{{ nkey: {} }}] }}",
        pair.public_key()
    );
    let locked = Locked::start(&users).await;
    let seed = locked.keep("user.nk", &format!("{}\n", pair.seed().expect("a seed")));
    let server = format!("--server=127.0.0.1:{}", locked.port);
    assert_in(&run(&[&server, "--nkey", &seed], &[]).await);
    assert_out(&run(&[&server], &[]).await);
    let ended = run(&[&server, "--nkey=/dev/null"], &[]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("no seed"), "{ended:?}");
}

#[tokio::test]
async fn a_context_is_used_as_the_nats_cli_uses_it() {
    let locked = Locked::start(USERS).await;
    let url = format!("nats://127.0.0.1:{}", locked.port);
    let context = format!(r#"{{"url": "{url}", "user": "eve", "password": "s3cret"}}"#);
    locked.keep("nats/context/shop.json", &context);
    let home = ("XDG_CONFIG_HOME", locked.home());
    assert_in(&run(&["--context=shop"], &[home]).await);
    assert_in(&run(&[], &[home, ("NATS_CONTEXT", "shop")]).await);
    locked.keep("nats/context.txt", "shop\n");
    assert_in(&run(&[], &[home]).await);
    let ended = run(&["--no-context", "--timeout=1s"], &[home]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");

    let ended = run(&["--user=eve", "--password=wrong"], &[home]).await;
    assert_out(&ended);
    let ended = run(&[], &[home, ("NATS_URL", "nats://127.0.0.1:1")]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    let line = ["--context=shop", "--server=nats://127.0.0.1:1"];
    let ended = run(&line, &[home]).await;
    assert!(ended.stderr.contains("not nats://127.0.0.1:"), "{ended:?}");
}

#[tokio::test]
async fn a_context_that_is_broken_or_not_there_is_said_with_what_to_do() {
    let folder = tempfile::tempdir().expect("make a folder");
    let contexts = folder.path().join("nats/context");
    std::fs::create_dir_all(&contexts).expect("make a folder");
    std::fs::write(contexts.join("prod.json"), "{nonsense").expect("write");
    let home = [("XDG_CONFIG_HOME", folder.path().to_str().expect("UTF-8"))];
    let ended = run(&["--context=shop"], &home).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("known: prod; create it"), "{ended:?}");
    let ended = run(&["--context=prod"], &home).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("nats context edit prod"), "{ended:?}");
}

/// A server with `handshake_first` sends nothing before the TLS handshake.
#[tokio::test]
async fn a_server_that_begins_with_tls_is_found_out() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let folder = tempfile::tempdir().expect("make a folder");
    let keep = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    };
    let cert = keep("cert.pem", made.cert.pem());
    let key = keep("key.pem", made.signing_key.serialize_pem());
    let tls =
        format!("tls {{ cert_file: \"{cert}\", key_file: \"{key}\", handshake_first: true }}");
    let locked = Locked::start(&tls).await;
    let url = format!("tls://127.0.0.1:{}", locked.port);
    let trusting = [("NATS_CA", &*cert)];
    assert_in(&run(&["--server", &url], &trusting).await);
    assert_in(&run(&["--server", &url, "--tlsfirst"], &trusting).await);
    let context = format!(r#"{{"url": "{url}", "ca": "{cert}", "tls_first": true}}"#);
    locked.keep("nats/context/shop.json", &context);
    let home = ("XDG_CONFIG_HOME", locked.home());
    assert_in(&run(&["--context=shop"], &[home]).await);
    let plain = format!("--server=nats://127.0.0.1:{}", locked.port);
    let ended = run(&[&plain, "--timeout=1s"], &[]).await;
    assert_eq!(ended.code, Some(4), "{ended:?}");
    assert!(ended.stderr.contains("add --tlsfirst"), "{ended:?}");

    for tls_first in [false, true] {
        let config = bus::Config {
            ca: Some(cert.clone().into()),
            tls_first,
            ..bus::Config::at(&url)
        };
        let bus = Bus::connect("sensors", &config)
            .await
            .expect("a configuration");
        eventually("the service to be let in", async || {
            if bus.is_up() { Ok(()) } else { Err("not up") }
        })
        .await;
    }
    // Without a certificate or a `tls://` URL, the error says what to set.
    let bus = Bus::connect("sensors", &bus::Config::at(url.replace("tls:", "nats:")))
        .await
        .expect("a configuration");
    let health = headwater::Health::new();
    let stop = tokio_util::sync::CancellationToken::new();
    let reporting = bus.report(health.clone(), stop.clone());
    let why = eventually("the cause", async || match health.parts().get("nats") {
        Some(State::Degraded(text)) => Ok(text.clone()),
        other => Err(format!("{other:?}")),
    });
    tokio::select! {
        why = why => assert!(why.contains("NATS_TLS_FIRST=true"), "{why}"),
        ended = reporting => panic!("{ended:?}"),
    }
}

/// The client library cannot change how it begins. The service can, after a restart.
#[tokio::test]
async fn a_service_ends_when_the_server_begins_in_another_way_than_when_it_started() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let folder = tempfile::tempdir().expect("make a folder");
    let keep = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    };
    let cert = keep("cert.pem", made.cert.pem());
    let key = keep("key.pem", made.signing_key.serialize_pem());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("its address").port();
    drop(free);
    let config = bus::Config {
        ca: Some(cert.clone().into()),
        ..bus::Config::at(format!("tls://127.0.0.1:{port}"))
    };
    let bus = Bus::connect("sensors", &config)
        .await
        .expect("a configuration");
    let stop = tokio_util::sync::CancellationToken::new();
    let mut reporting = std::pin::pin!(bus.report(headwater::Health::new(), stop));
    let settings = format!(
        "listen: \"127.0.0.1:{port}\"
         tls {{ cert_file: \"{cert}\", key_file: \"{key}\", handshake_first: true }}"
    );
    let starting = Locked::start(&settings);
    let _locked = tokio::select! {
        locked = starting => locked,
        ended = &mut reporting => panic!("no server is there yet: {ended:?}"),
    };
    let ended = tokio::time::timeout(std::time::Duration::from_mins(1), reporting).await;
    let ended = ended.expect("it ends").expect_err("as an error");
    assert!(
        matches!(ended, bus::Error::HandshakeChanged(_)),
        "{ended:?}"
    );
    assert!(ended.to_string().contains("`handshake_first`"), "{ended:#}");
}

/// The authority, the server and the client share one certificate.
#[tokio::test]
async fn certificates_are_shown_and_demanded() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
    let folder = tempfile::tempdir().expect("make a folder");
    let keep = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("write");
        path.to_str().expect("UTF-8").to_owned()
    };
    let cert = keep("cert.pem", made.cert.pem());
    let key = keep("key.pem", made.signing_key.serialize_pem());
    let locked = Locked::start(&format!(
        "tls {{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{cert}\", verify: true }}"
    ))
    .await;
    let server = format!("--server=tls://127.0.0.1:{}", locked.port);
    let whole = [
        &*server,
        "--tlsca",
        &cert,
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ];
    assert_in(&run(&whole, &[]).await);
    let environment = [
        ("NATS_CA", &*cert),
        ("NATS_CERT", &cert),
        ("NATS_KEY", &key),
    ];
    assert_in(&run(&[&server], &environment).await);
    for part in [&whole[..1], &whole[..3]] {
        let ended = run(part, &[]).await;
        assert_eq!(ended.code, Some(4), "{part:?}: {ended:?}");
    }
    let ended = run(&whole[..5], &[]).await;
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended
            .stderr
            .contains("a client certificate for NATS needs its key"),
        "{ended:?}"
    );

    let config = bus::Config {
        ca: Some(cert.clone().into()),
        cert: Some(cert.into()),
        key: Some(key.into()),
        ..bus::Config::at(format!("tls://127.0.0.1:{}", locked.port))
    };
    let bus = Bus::connect("sensors", &config)
        .await
        .expect("a configuration");
    eventually("the service to be let in", async || {
        if bus.is_up() { Ok(()) } else { Err("not up") }
    })
    .await;
}

#[tokio::test]
async fn services_log_in_by_url_password_file_and_nkey() {
    let pair = nkeys::KeyPair::new_user();
    let locked = Locked::start(&format!(
        "authorization {{ users: [{{ user: eve, password: \"s3cret\" }}, {{ nkey: {} }}] }}",
        pair.public_key()
    ))
    .await;
    let url = format!("nats://127.0.0.1:{}", locked.port);
    let of_url = bus::Config::at(format!("nats://eve:s3cret@127.0.0.1:{}", locked.port));
    let of_file = bus::Config {
        user: Some("eve".to_owned()),
        password_file: Some(locked.keep("password", "s3cret\n").into()),
        ..bus::Config::at(&url)
    };
    let of_nkey = bus::Config {
        nkey: Some(locked.keep("user.nk", &pair.seed().expect("a seed")).into()),
        ..bus::Config::at(&url)
    };
    for config in [of_url, of_file, of_nkey] {
        let bus = Bus::connect("sensors", &config)
            .await
            .expect("a configuration");
        eventually("to be let in", async || {
            if bus.is_up() { Ok(()) } else { Err("not up") }
        })
        .await;
    }
    let half = bus::Config {
        user: Some("eve".to_owned()),
        ..bus::Config::at(&url)
    };
    let refused = Bus::connect("sensors", &half).await;
    let said = format!("{:#}", refused.expect_err("half a login"));
    assert!(said.contains("--nats-password-file"), "{said}");
}

#[tokio::test]
async fn global_flags_may_stand_before_or_after_the_command() {
    let locked = Locked::start("").await;
    let server = format!("--server=127.0.0.1:{}", locked.port);
    let before = ["-o", "json", &server, "dead-letter", "list"];
    let ended = tool::start(&before, &[]).end().await;
    assert_eq!((ended.code, &*ended.stdout), (Some(0), "{}\n"), "{ended:?}");
    let ended = run(&[&server, "-ojson"], &[]).await;
    assert_eq!((ended.code, &*ended.stdout), (Some(0), "{}\n"), "{ended:?}");
}
