//! The HTML pages, checked by axe in a browser, in light and dark colours.

use e2e::checkers::{Axe, Colours};
use e2e::{Service, World};

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_nothing_wrong_with_any_page() {
    let Some(axe) = Axe::find() else { return };
    let broken = "<!doctype html><html lang='en'><title>x</title><main><h1>x</h1><img src='x.png'>\
                  <p style='color: #aaa; background: #bbb'>hardly there</p></main></html>";
    let found = axe.violations(broken, Colours::Light).await.join("\n");
    assert!(
        found.contains("image-alt") && found.contains("color-contrast"),
        "{found}"
    );

    let world = World::on_host().start().await.with_styles().await;
    let (ada, bob) = (world.user("ada").await, world.user("bob").await);
    let (mug, tent) = (world.product("Mug").await, world.product("Tent").await);
    world.order(&ada, &[&mug, &tent]).await;
    world.caught_up().await;
    let user = format!("/users/{}", ada.id());
    let mut pages = vec![
        (Service::Purchases, "/".to_owned()),
        (Service::Purchases, "/?user=nobody".to_owned()),
        (Service::Purchases, "/users/nobody".to_owned()),
        (Service::Purchases, user.clone()),
        (Service::Purchases, format!("{user}?limit=1")),
        (Service::Purchases, format!("/users/{}", bob.id())),
        (Service::RequestReply, "/".to_owned()),
    ];
    for service in Service::ALL {
        pages.push((service, "/docs".to_owned()));
    }
    for (service, path) in pages {
        let page = world.client(service).get(&path).await;
        assert_eq!(page.content_type, "text/html; charset=utf-8", "{path}");
        for colours in [Colours::Light, Colours::Dark] {
            let found = axe.violations(&page.text, colours).await;
            let what = format!("{} {path}, {colours:?}", service.name());
            assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
        }
    }
    world.finish().await;
}
