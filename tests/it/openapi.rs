//! The OpenAPI documents are true: schemathesis derives valid and invalid requests from them, and
//! compares the answers.

use std::path::Path;
use std::process::Stdio;

use e2e::checkers;
use e2e::{Service, World};
use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

/// How many requests to generate per operation, in addition to the bounds of its schema.
const EXAMPLES: &str = "20";

/// The same requests in each run.
const SEED: &str = "4711";

#[tokio::test(flavor = "multi_thread")]
async fn every_service_answers_as_it_documents() {
    let Some(schemathesis) = checkers::schemathesis() else {
        return;
    };
    let world = World::on_host().start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    let order = world.order(&ada, &[&mug]).await;
    let products = world.client(Service::Products);
    let upload = products.request(Method::POST, "/images").body("<svg/>");
    let upload = e2e::client::send(upload.header("content-type", "image/svg+xml")).await;
    assert_eq!(upload.status, 201, "{}", upload.text);
    world.caught_up().await;
    let known = json!({
        "user": ada.id(), "product": mug.id(), "order": order.id(),
        "image": upload.json["image"],
        "after": format!("{},{}", ada.position(), mug.position()),
    });
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemathesis");
    // `users` comes last, because its operations erase the user.
    for service in Service::ALL.into_iter().rev() {
        let document = world.client(service).get("/openapi.json").await.json;
        // schemathesis does not count the document itself as an operation.
        let paths = document["paths"].as_object().into_iter().flatten();
        let paths = paths.filter(|(path, _)| *path != "/openapi.json");
        let methods = paths.filter_map(|(_, methods)| methods.as_object());
        let count: usize = methods.map(serde_json::Map::len).sum();
        let document = format!("{}/openapi.json", world.client(service).base());
        let run = Command::new(&schemathesis)
            .arg("--config-file")
            .arg(folder.join("schemathesis.toml"))
            .args(["--no-color", "run", &document, "--checks", "all"])
            .args(["--max-examples", EXAMPLES, "--seed", SEED])
            .args(["--continue-on-failure", "--generation-database", "none"])
            .env("SCHEMATHESIS_HOOKS", "hooks")
            .env("PYTHONPATH", &folder)
            .env("HEADWATER_KNOWN", known.to_string())
            .current_dir(world.folder())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let run = run.await.expect("run schemathesis");
        let output = String::from_utf8_lossy(&run.stdout);
        let errors = String::from_utf8_lossy(&run.stderr);
        assert!(
            run.status.success(),
            "{}:\n{output}\n{errors}",
            service.name()
        );
        let all = format!("{count} selected / {count} total");
        assert!(count > 3 && output.contains(&all), "{all}: {output}");
    }
    world.finish().await;
}
