//! The page of a user in a browser: it follows, and works without scripts.

use std::process::Command;
use std::time::Instant;

use e2e::browser::{Browser, Colours, Options, Page};
use e2e::client::send;
use e2e::faults::{metric, tell};
use e2e::{Reply, Service, World, eventually};
use reqwest::Method;
use serde_json::json;

/// Images are elsewhere.
const EXPECTED: &[&str] = &["ERR_NAME_NOT_RESOLVED"];

/// The page after a while without the service.
const AWAY: &[&str] = &["ERR_NAME_NOT_RESOLVED", "ERR_CONNECTION", "ERR_INCOMPLETE"];

async fn open(world: &World, browser: &Browser, path: &str, options: Options) -> Page {
    let url = format!("{}{path}", world.client(Service::Purchases).base());
    browser.open(&url, options).await
}

fn page_of(user: &Reply) -> String {
    format!("/users/{}", user.id())
}

/// A user who ordered a mug.
async fn shop() -> (World, Reply, Reply) {
    let world = World::on_host().start().await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    (world, ada, mug)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_what_is_ordered_and_renamed_while_it_is_read() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (world, ada, mug) = shop().await;
    let narrow = Options {
        colours: Colours::Dark,
        reduced_motion: true,
        width: 360,
        height: 740,
        ..Options::default()
    };
    let wide = open(&world, &browser, &page_of(&ada), Options::default()).await;
    let narrow = open(&world, &browser, &page_of(&ada), narrow).await;
    for page in [&wide, &narrow] {
        page.wait_for_text("Live").await;
        page.assert_sound("a live page", EXPECTED).await;
    }
    // With the keyboard only: the focus stays where it is.
    wide.evaluate("document.querySelector('footer a').focus()")
        .await;
    let focused = wide.focused().await;

    let tent = world.product("Tent").await;
    let began = Instant::now();
    world.order(&ada, &[&tent]).await;
    wide.wait_for_text("Tent").await;
    tell(&format!(
        "an order was on the page after {:?}",
        began.elapsed()
    ));
    wide.wait_until("document.getElementById('news').textContent === 'Tent was ordered'")
        .await;
    assert_eq!(wide.texts("#cards h2").await, ["Tent", "Mug"]);
    assert!(wide.texts("#count").await[0].starts_with("2 products"));
    assert_eq!(wide.focused().await, focused);
    narrow.wait_for_text("Tent").await;

    // The focus stays in a card that changes.
    let of_mug = format!("#cards a[href='/products/{}']", mug.id());
    wide.evaluate(&format!("document.querySelector(\"{of_mug}\").focus()"))
        .await;
    assert_eq!(wide.focused().await.as_deref(), Some("link: Mug"));
    let began = Instant::now();
    world.rename(&mug, "Cup").await;
    wide.wait_for_text("Cup").await;
    tell(&format!(
        "a new name was on the page after {:?}",
        began.elapsed()
    ));
    narrow.wait_for_text("Cup").await;
    wide.wait_until("document.getElementById('news').textContent === 'Mug is now Cup'")
        .await;
    assert_eq!(wide.focused().await.as_deref(), Some("link: Cup"));
    for page in [&wide, &narrow] {
        assert_eq!(page.texts("#cards h2").await, ["Tent", "Cup"]);
        page.assert_sound("a page that has changed", EXPECTED).await;
    }
    assert_eq!(wide.attributes("script", "src").await, ["/follow.js"]);
    let script = wide.transferred("Script");
    assert!(
        (1.0..20_000.0).contains(&script),
        "{script} bytes of scripts"
    );
    drop((wide, narrow));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_order_appears_on_an_empty_page_and_an_erased_user_disappears() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (world, _, mug) = shop().await;
    let bob = world.user("bob").await;
    world.caught_up().await;
    let page = open(&world, &browser, &page_of(&bob), Options::default()).await;
    page.wait_for_text("Live").await;
    page.wait_for_text("not ordered anything yet").await;
    world.order(&bob, &[&mug]).await;
    page.wait_for("#cards .card").await;
    page.wait_until("!document.body.innerText.includes('not ordered anything yet')")
        .await;
    let erase = world.client(Service::Users);
    // Nobody follows on a page that is not shown.
    let hidden = open(&world, &browser, &page_of(&bob), Options::default()).await;
    hidden.hide().await;
    hidden.wait_for_text("Paused").await;
    let erased = send(erase.request(Method::DELETE, &page_of(&bob))).await;
    assert!(erased.status.is_success(), "{}", erased.text);
    page.wait_for_text("This user was erased").await;
    hidden.show().await;
    hidden.wait_for_text("This user was erased").await;
    assert_eq!(hidden.texts("h1").await, ["No such user"]);
    assert_eq!(hidden.texts("#cards h2").await, [""; 0]);
    assert_eq!(page.texts("h1").await, ["No such user"]);
    assert!(page.texts("#cards .card").await.is_empty());
    page.assert_sound("the page of an erased user", EXPECTED)
        .await;
    drop(page);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_hidden_or_cut_off_shows_what_it_missed() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (mut world, ada, mug) = shop().await;
    let page = open(&world, &browser, &page_of(&ada), Options::default()).await;
    page.wait_for_text("Live").await;
    page.hide().await;
    let admin = world.admin(Service::Purchases);
    eventually("no stream", async || {
        let streams = metric(&admin, "headwater_http_streams").await;
        if streams < 0.5 { Ok(()) } else { Err(streams) }
    })
    .await;
    let state = page.evaluate("document.getElementById('live').textContent");
    assert_eq!(state.await, "Paused");
    world.rename(&mug, "Cup").await;
    world.caught_up().await;
    assert_eq!(page.texts("#cards h2").await, ["Mug"]);
    page.show().await;
    page.wait_for_text("Cup").await;
    page.wait_for_text("Live").await;

    world.stop(Service::Purchases).await;
    page.wait_for_text("Reconnecting").await;
    let tent = world.product("Tent").await;
    world.order(&ada, &[&tent]).await;
    world.run(Service::Purchases).await;
    page.wait_for_text("Tent").await;
    page.wait_for_text("Live").await;
    assert_eq!(page.texts("#cards h2").await, ["Tent", "Cup"]);
    page.assert_sound("a page that was cut off", AWAY).await;
    drop(page);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_page_only_says_that_there_is_something_newer() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (world, ada, mug) = shop().await;
    let tent = world.product("Tent").await;
    world.order(&ada, &[&tent]).await;
    world.caught_up().await;
    let first = format!("{}?limit=1", page_of(&ada));
    let page = open(&world, &browser, &first, Options::default()).await;
    page.click("a[rel=next]").await;
    page.wait_for("a[rel=prev]").await;
    page.wait_for_text("Live").await;
    assert_eq!(page.texts("#cards h2").await, ["Mug"]);
    world.rename(&mug, "Cup").await;
    world.rename(&tent, "Big tent").await;
    world.caught_up().await;
    let hat = world.product("Hat").await;
    world.order(&ada, &[&hat]).await;
    page.wait_for_text("There is something newer").await;
    assert_eq!(page.texts("#cards h2").await, ["Mug"]);
    page.assert_sound("a later page", EXPECTED).await;
    page.click("#newer a").await;
    page.wait_for_text("Hat").await;
    assert_eq!(page.texts("#cards h2").await, ["Hat", "Big tent", "Cup"]);
    drop(page);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_what_was_ordered_before_they_followed() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (world, ada, _) = shop().await;
    for title in ["Tent", "Lamp"] {
        let product = world.product(title).await;
        world.order(&ada, &[&product]).await;
    }
    world.caught_up().await;
    let path = format!("{}?limit=1", page_of(&ada));
    let first = open(&world, &browser, &path, Options::default()).await;
    first.click("a[rel=next]").await;
    first.wait_for("a[rel=prev]").await;
    // Pages that are not shown have no stream yet.
    let later = first.attributes("a[rel=next]", "href").await.remove(0);
    let mut pages = Vec::new();
    for path in [page_of(&ada), later] {
        let page = browser.open("about:blank", Options::default()).await;
        page.hide().await;
        let base = world.client(Service::Purchases).base().to_owned();
        page.goto(&format!("{base}{path}")).await;
        page.wait_for_text("Paused").await;
        pages.push(page);
    }
    let hat = world.product("Hat").await;
    world.order(&ada, &[&hat]).await;
    world.caught_up().await;
    for (page, text) in pages.iter().zip(["Hat", "There is something newer"]) {
        assert!(!page.texts("main").await[0].contains(text));
        page.show().await;
        page.wait_for_text(text).await;
        page.assert_sound(text, EXPECTED).await;
    }
    drop((first, pages));
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_to_the_newest_products_and_finds_few_is_told_of_more() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (world, ada, mug) = shop().await;
    let tent = world.product("Tent").await;
    world.order(&ada, &[&tent]).await;
    let (lamp, hat) = (world.product("Lamp").await, world.product("Hat").await);
    world.order(&ada, &[&lamp]).await;
    world.caught_up().await;
    let path = format!("{}?limit=2", page_of(&ada));
    let page = open(&world, &browser, &path, Options::default()).await;
    assert_eq!(page.texts("#cards h2").await, ["Lamp", "Tent"]);
    page.click("a[rel=next]").await;
    page.wait_for("a[rel=prev]").await;
    world.order(&ada, &[&hat]).await;
    world.caught_up().await;
    // What appears above the link moves it: a click must not fall in between.
    page.wait_for_text("There is something newer").await;
    // The two after the mug, and then the one hat.
    for shown in [vec!["Lamp", "Tent"], vec!["Hat"]] {
        page.click("a[rel=prev]").await;
        let first = format!(
            "document.querySelector('#cards h2').textContent === '{}'",
            shown[0]
        );
        page.wait_until(&first).await;
        assert_eq!(page.texts("#cards h2").await, shown);
    }
    page.wait_for_text("Live").await;
    world.order(&ada, &[&mug]).await;
    let cup = world.product("Cup").await;
    world.order(&ada, &[&cup]).await;
    page.wait_for_text("There is something newer").await;
    assert_eq!(page.texts("#cards h2").await, ["Hat"]);
    page.assert_sound("a page with few of the newest", EXPECTED)
        .await;
    drop(page);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_was_not_in_the_page_yet_is_reported_once_it_is() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (world, ada, mug) = shop().await;
    let path = format!("{}?unseen=orders:2", page_of(&ada));
    let page = open(&world, &browser, &path, Options::default()).await;
    page.wait_for_text("Live").await;
    page.wait_for_text("not in this page yet").await;
    world.order(&ada, &[&mug]).await;
    page.wait_for_text("Your order is in this page now").await;
    page.wait_for_text("ordered 2 times").await;
    page.wait_until("document.getElementById('news').textContent === 'Mug was ordered again'")
        .await;
    page.assert_sound("an order that has arrived", EXPECTED)
        .await;
    drop(page);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_scripts_is_as_good_as_the_moment_it_was_loaded() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let (world, ada, mug) = shop().await;
    let plain = Options {
        scripts: false,
        ..Options::default()
    };
    let page = open(&world, &browser, &page_of(&ada), plain).await;
    assert_eq!(page.texts("#cards h2").await, ["Mug"]);
    assert_eq!(page.texts("#live, #newer").await, [""; 0]);
    page.assert_sound("a page without scripts", EXPECTED).await;
    world.rename(&mug, "Cup").await;
    world.caught_up().await;
    assert_eq!(page.texts("#cards h2").await, ["Mug"]);
    page.goto(&format!(
        "{}{}",
        world.client(Service::Purchases).base(),
        page_of(&ada)
    ))
    .await;
    assert_eq!(page.texts("#cards h2").await, ["Cup"]);
    drop(page);
    world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_title_is_text_and_a_hostile_image_a_picture() {
    const TITLES: [&str; 3] = [
        "<img src=x onerror=alert(1)>",
        "</script><script>alert(2)</script>",
        "</h2></li><li id=live>&lt;b&gt;",
    ];
    const IMAGE: &str = "<svg xmlns='http://www.w3.org/2000/svg' width='4' height='3' \
                         onload='alert(3)'><script>alert(4)</script></svg>";
    let Some(browser) = Browser::find() else {
        return;
    };
    let mut world = World::on_host()
        .of_services(&Service::SOURCES)
        .start()
        .await;
    let products = world.client(Service::Products);
    let images = products.base().to_owned();
    let settings = |command: &mut Command| {
        command.env("HEADWATER_IMAGES_URL", &images);
    };
    world.run_with(Service::Purchases, settings).await;
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    let upload = products.request(Method::POST, "/images");
    let upload = upload.header("content-type", "image/svg+xml").body(IMAGE);
    let image = send(upload).await.json["image"]
        .as_str()
        .unwrap()
        .to_owned();
    let page = open(&world, &browser, &page_of(&ada), Options::default()).await;
    page.wait_for_text("Live").await;
    for title in TITLES {
        // On a card that is there, and on a new one.
        world.rename(&mug, title).await;
        let body = json!({ "title": title, "image": image });
        let product = products.create("/products", &body).await;
        world.order(&ada, &[&product]).await;
        let title = json!(title);
        let shown = "[...document.querySelectorAll('#cards h2')]";
        page.wait_until(&format!(
            "{shown}.filter(e => e.textContent === {title}).length === 2"
        ))
        .await;
        world.rename(&product, "Tent").await;
        page.wait_until(&format!("{shown}[0].textContent === 'Tent'"))
            .await;
    }
    assert_eq!(page.texts("#cards > li").await.len(), TITLES.len() + 1);
    page.wait_until("document.querySelector('#cards img').naturalWidth > 0")
        .await;
    page.assert_sound("a page with hostile titles", EXPECTED)
        .await;
    // The same titles in the page as it is loaded.
    page.goto(&format!(
        "{}{}",
        world.client(Service::Purchases).base(),
        page_of(&ada)
    ))
    .await;
    page.wait_for_text("Live").await;
    assert!(
        page.texts("#cards h2")
            .await
            .contains(&TITLES[2].to_owned())
    );
    page.assert_sound("a page with hostile titles, loaded", EXPECTED)
        .await;
    drop(page);
    world.finish().await;
}
