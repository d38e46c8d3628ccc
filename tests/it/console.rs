//! `headwater console` in a browser.

use e2e::browser::{Browser, Colours, Options, Page};
use e2e::{Reply, World, eventually, program};
use headwater_testkit::Tool;
use prost::Message as _;
use shop_events::OrderPlaced;
use tempfile::TempDir;

/// A shop with a dead letter, and the console of its operator.
struct Room {
    world: World,
    ada: Reply,
    mug: Reply,
    /// The address with its token.
    url: String,
    _tool: Tool,
    _state: TempDir,
}

impl Room {
    async fn start(flags: &[&str]) -> Self {
        let world = World::on_host().start().await;
        let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
        world.order(&ada, &[&mug]).await;
        world.caught_up().await;
        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().to_str().expect("UTF-8");
        let headwater = program("headwater");
        let headwater = headwater.to_str().expect("UTF-8");
        let (url, login) = (world.nats_url(), world.login());
        let (user, password) = login.unwrap_or_default();
        let line = [&["console", "--every=300ms", "--no-context"], flags].concat();
        let environment = [
            ("NATS_URL", &*url),
            ("NATS_USER", &user),
            ("NATS_PASSWORD", &password),
            ("XDG_STATE_HOME", folder),
        ];
        let mut tool = Tool::start(headwater, &line, &environment);
        Self {
            url: tool.says().await.trim().to_owned(),
            world,
            ada,
            mug,
            _tool: tool,
            _state: state,
        }
    }

    /// Publishes an order by hand that no projection can apply.
    async fn spoil(&self) {
        let wrong = OrderPlaced {
            user_id: self.ada.id(),
            product_ids: vec!["<script>alert(1)</script>".to_owned()],
            ..OrderPlaced::default()
        };
        let jetstream = async_nats::jetstream::new(self.world.nats().await);
        let subject = headwater::subject_of(&wrong);
        let sent = jetstream
            .publish(subject, wrong.encode_to_vec().into())
            .await;
        sent.expect("sent").await.expect("stored");
    }

    fn path(&self, path: &str) -> String {
        let (base, _) = self.url.split_once("/?token=").expect("a token");
        format!("{base}{path}")
    }

    /// Enters, and shows a page.
    async fn open(&self, browser: &Browser, options: Options, path: &str) -> Page {
        let page = browser.open(&self.url, options).await;
        page.wait_for_text("What is wrong").await;
        page.goto(&self.path(path)).await;
        page
    }
}

/// Presses Tab until an element whose role and name begin like this has the focus.
async fn tab_to(page: &Page, wanted: &str) {
    let mut seen = Vec::new();
    for _ in 0..200 {
        page.press("Tab").await;
        let focused = page.focused().await.unwrap_or_default();
        if focused.starts_with(wanted) {
            return;
        }
        seen.push(focused);
    }
    panic!("Tab does not reach {wanted}, but {seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_finds_nothing_wrong_with_any_page_of_the_console() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let room = Room::start(&["--as-operator"]).await;
    room.spoil().await;
    let wide = Options::default();
    let first = room.open(&browser, wide, "/dead-letters").await;
    eventually("a dead letter", async || {
        first.goto(&room.path("/dead-letters")).await;
        let found = first.texts("h2").await;
        let is_there = found.iter().any(|text| text == "purchases: 1");
        if is_there { Ok(()) } else { Err(found) }
    })
    .await;
    let pages = [
        "/",
        "/events",
        "/events?source=orders&type=placed&text=nothing",
        "/events/orders:1",
        "/events/orders@2",
        "/dead-letters",
        "/dead-letters/purchases/1",
        "/confirm?verb=discard&pick=purchases:1",
        "/confirm?verb=restore&source=orders",
        "/actions",
        "/log",
        "/none",
    ];
    for path in pages {
        let dark = Options {
            colours: Colours::Dark,
            width: 360,
            scripts: false,
            ..wide
        };
        for options in [wide, dark] {
            let page = room.open(&browser, options, path).await;
            let what = format!("{path}, {options:?}");
            page.assert_sound(&what, &["status of 404"]).await;
        }
    }
    first
        .goto(&room.path("/confirm?verb=discard&pick=purchases:1"))
        .await;
    first.click("#reason").await;
    first.type_text("a test").await;
    first.press("Enter").await;
    first.wait_for_text("discarded 1").await;
    room.world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_discards_a_dead_letter_with_the_keyboard() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let room = Room::start(&["--as-operator"]).await;
    room.spoil().await;
    let page = room.open(&browser, Options::default(), "/").await;
    page.wait_for_text("1 dead letters of purchases wait").await;
    tab_to(&page, "link: Skip to the content").await;
    tab_to(&page, "link: Dead letters").await;
    page.press("Enter").await;
    page.wait_for_text("purchases: 1").await;
    tab_to(&page, "checkbox: Choose purchases:1").await;
    page.press(" ").await;
    tab_to(&page, "button: Discard the chosen").await;
    page.press("Enter").await;
    page.wait_for_text("This cannot be undone").await;
    tab_to(&page, "textbox: Reason").await;
    page.type_text("published by hand").await;
    tab_to(&page, "button: Yes").await;
    page.press("Enter").await;
    page.wait_for_text("discarded 1").await;
    page.assert_sound("the action", &[]).await;
    tab_to(&page, "link: Log").await;
    page.press("Enter").await;
    page.wait_for_text("reason: published by hand").await;
    room.world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_the_rows_before_and_after_an_event() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let room = Room::start(&["--as-operator"]).await;
    let wide = Options::default();
    let page = room.open(&browser, wide, "/events/orders:1").await;
    tab_to(&page, "link: Before and after in purchases").await;
    page.press("Enter").await;
    page.wait_for_text("on a temporary copy").await;
    tab_to(&page, "button: Yes").await;
    page.press("Enter").await;
    page.wait_for_text("orders:1 changes").await;
    page.assert_sound("masked rows", &[]).await;
    tab_to(&page, "link: Show the values").await;
    page.press("Enter").await;
    page.wait_for_text("Mask the values").await;
    let tables = page.texts("section h2").await;
    assert!(tables.iter().any(|it| it == "purchase added"), "{tables:?}");
    let dark = Options {
        colours: Colours::Dark,
        width: 360,
        scripts: false,
        ..wide
    };
    let small = room.open(&browser, dark, "/actions/1?personal=shown").await;
    small.assert_sound("rows", &[]).await;
    room.world.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_appear_as_they_come_and_wait_while_updates_are_paused() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let room = Room::start(&[]).await;
    let events = room
        .open(&browser, Options::default(), "/events?source=orders")
        .await;
    assert_eq!(
        events.texts("#rows a[href='/events/orders:1']").await,
        ["orders:1"]
    );
    events.wait_for_text("Updates as it changes").await;
    room.world.order(&room.ada, &[&room.mug]).await;
    events.wait_for("a[href='/events/orders:2']").await;
    let places = events.texts("#rows tr td:first-child a").await;
    assert_eq!(places, ["orders:2", "orders:1"], "the newest first");

    tab_to(&events, "button: Pause updates").await;
    events.press("Enter").await;
    room.world.order(&room.ada, &[&room.mug]).await;
    events.wait_for_text("Paused; 1 updates wait").await;
    assert_eq!(events.texts("a[href='/events/orders:3']").await, [""; 0]);
    events.press("Enter").await;
    events.wait_for("a[href='/events/orders:3']").await;

    // What the reader is looking at does not move.
    tab_to(&events, "link: orders:3").await;
    room.world.order(&room.ada, &[&room.mug]).await;
    events.wait_for_text("Waits while you read").await;
    tab_to(&events, "link: orders.v1.placed").await;
    events.evaluate("document.activeElement.blur()").await;
    events.wait_for("a[href='/events/orders:4']").await;
    events.assert_sound("the events", &[]).await;
    room.world.finish().await;
}
