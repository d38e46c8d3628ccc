//! Security headers for browsers, and the cost of clients that do not read.

use std::net::SocketAddr;

use e2e::faults::metric;
use e2e::{Service, World};
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

/// The headers that every answer must have.
fn assert_headers(what: &str, headers: &HeaderMap, is_image: bool) {
    let header = |name: &str| {
        let value = headers
            .get(name)
            .unwrap_or_else(|| panic!("{what}: no {name}"));
        value.to_str().unwrap().to_owned()
    };
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(header("referrer-policy"), "same-origin", "{what}");
    let policy = header("content-security-policy");
    for directive in ["default-src 'none'", "frame-ancestors 'none'"] {
        assert!(policy.contains(directive), "{what}: {policy}");
    }
    // The page of a user follows.
    let follows = what.starts_with("purchases GET /users/") && !what.ends_with("/purchases");
    let own = if follows { "script-src 'self'" } else { "" };
    assert!(
        !policy.replace(own, "").contains("script"),
        "{what}: {policy}"
    );
    if is_image {
        assert!(policy.ends_with("; sandbox"), "{what}: {policy}");
    } else {
        assert_eq!(header("cache-control"), "no-store", "{what}");
        assert!(!policy.contains("unsafe"), "{what}: {policy}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_of_every_service_answers_with_headers_for_browsers() {
    let world = World::start().await.with_styles().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    let order = world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    let known = [ada.id(), mug.id(), order.id()];
    let mut operations = 0;
    for service in Service::SOURCES.into_iter().chain(Service::STYLES) {
        for client in [world.client(service), world.admin(service)] {
            let document = client.get("/openapi.json").await.json;
            let paths = document["paths"].as_object().unwrap();
            for (path, item) in paths {
                // The ids of an existing user, product and order, and an invalid id.
                for id in known.iter().map(String::as_str).chain(["nonsense"]) {
                    let path = path.replace("{id}", id);
                    for method in item.as_object().unwrap().keys() {
                        if method == "delete" {
                            continue;
                        }
                        let method: Method = method.to_uppercase().parse().unwrap();
                        let what = format!("{} {method} {path}", service.name());
                        let request = client.request(method.clone(), &path);
                        let request = match method {
                            Method::GET => request,
                            _ => request.json(&Value::Null),
                        };
                        let answer = request.send().await.unwrap();
                        assert_headers(&what, answer.headers(), false);
                        operations += 1;
                    }
                }
            }
            for (method, path) in [
                (Method::GET, "/nothing"),
                (Method::GET, "/docs"),
                (Method::GET, "/livez?what=1"),
                (Method::PUT, "/livez"),
                (Method::HEAD, "/readyz"),
                (Method::DELETE, "/users/nonsense"),
            ] {
                let what = format!("{} {method} {path}", service.name());
                let answer = client.request(method, path).send().await.unwrap();
                assert_headers(&what, answer.headers(), false);
            }
            let other = client.request(Method::GET, "/docs");
            let other = other.header("host", "evil.example").send().await.unwrap();
            assert_eq!(other.status(), StatusCode::MISDIRECTED_REQUEST);
            assert_headers("another host", other.headers(), false);
        }
    }
    assert!(operations > 100, "only {operations} operations");
    let erased = world.client(Service::Users);
    let erased = erased.request(Method::DELETE, &format!("/users/{}", ada.id()));
    assert_headers("an erasure", erased.send().await.unwrap().headers(), false);
    let image = upload(&world, b"<svg/>", "image/svg+xml").await;
    let image = world.client(Service::Products).request(Method::GET, &image);
    let image = image.send().await.unwrap();
    assert_headers("an image", image.headers(), true);
    for (service, path) in [
        (Service::Purchases, "/".to_owned()),
        (Service::Purchases, format!("/users/{}", mug.id())),
        (Service::Users, "/docs".to_owned()),
    ] {
        let page = world.client(service).request(Method::GET, &path);
        let page = page.send().await.unwrap();
        let policy = page.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("style-src 'sha256-"), "{path}: {policy}");
        let page = page.text().await.unwrap();
        for inline in ["<script", " style=", " onclick=", " onload="] {
            assert!(!page.contains(inline), "{path}: {inline}");
        }
        assert_eq!(page.matches("<style>").count(), 1, "{path}");
    }
    world.finish().await;
}

/// Uploads an image; returns its path.
async fn upload(world: &World, bytes: &[u8], kind: &str) -> String {
    let upload = world
        .client(Service::Products)
        .request(Method::POST, "/images");
    let upload = upload.header("content-type", kind).body(bytes.to_vec());
    let uploaded: Value = upload.send().await.unwrap().json().await.unwrap();
    uploaded["image"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_many_clients_do_not_read_is_in_memory_once() {
    const CLIENTS: usize = 300;
    let mut world = World::on_host().empty();
    world.run(Service::Products).await;
    let mut image = vec![7; 2 * 1024 * 1024];
    image[..8].copy_from_slice(b"\x89PNG\r\n\x1a\n");
    let path = upload(&world, &image, "image/png").await;
    let address = world.client(Service::Products);
    let address: SocketAddr = address.base()["http://".len()..].parse().unwrap();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut client = socket.connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        clients.push(client);
    }
    let admin = world.admin(Service::Products);
    let held = metric(&admin, "headwater_http_buffered_bytes").await;
    assert!(held < 3e6, "{held} bytes for {CLIENTS} clients");
    let pid = world.process(Service::Products).pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim().trim_end_matches(" kB");
    let peak: usize = peak.parse().unwrap();
    assert!(peak < 128 * 1024, "{peak} KiB for {CLIENTS} clients");
    drop(clients);
    world.stop(Service::Products).await;
    world.abandon();
}
