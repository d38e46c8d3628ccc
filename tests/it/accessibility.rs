//! The HTML pages, checked by axe in a browser: light and wide, dark and narrow.

use e2e::browser::{Browser, Colours, Options};
use e2e::{Service, World};

/// A page may be an error; images are elsewhere.
const EXPECTED: [&str; 3] = ["status of 400", "status of 404", "ERR_NAME_NOT_RESOLVED"];

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_finds_nothing_wrong_with_any_page() {
    let Some(browser) = Browser::find() else {
        return;
    };
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
        (Service::Purchases, "/?q=mug".to_owned()),
        (Service::Purchases, "/?q=ada".to_owned()),
        (Service::Purchases, "/?q=-".to_owned()),
        (Service::Purchases, format!("/products/{}", mug.id())),
        (Service::Purchases, "/products/none".to_owned()),
        (Service::Purchases, "/order".to_owned()),
        (Service::Purchases, "/order?user=ada".to_owned()),
        (
            Service::Purchases,
            format!("/order?user={}&product={}", ada.id(), mug.id()),
        ),
        (Service::Purchases, format!("{user}?seen_ms=12")),
        (Service::Purchases, format!("{user}?unseen=orders:1000")),
        (Service::RequestReply, "/".to_owned()),
        (Service::RequestReply, "/?q=ada".to_owned()),
        (Service::Composition, format!("/order?product={}", mug.id())),
    ];
    for service in Service::ALL {
        pages.push((service, "/docs".to_owned()));
    }
    for (service, path) in pages {
        let url = format!("{}{path}", world.client(service).base());
        for (colours, width) in [(Colours::Light, 1280), (Colours::Dark, 360)] {
            let options = Options {
                colours,
                width,
                ..Options::default()
            };
            let page = browser.open(&url, options).await;
            let what = format!("{} {path}, {options:?}", service.name());
            page.assert_sound(&what, &EXPECTED).await;
        }
    }
    world.finish().await;
}
