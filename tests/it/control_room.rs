//! The control room of `cargo dev`, in a browser.

use e2e::browser::{Browser, Colours, Options, Page};

use crate::dev::Dev;

/// Waits until the replica, API composition and request-reply are in these states.
async fn styles(page: &Page, states: [&str; 3]) {
    let shown =
        "[...document.querySelectorAll('.columns article')].map(it => it.dataset.is).join()";
    page.wait_until(&format!("{shown} === '{}'", states.join(",")))
        .await;
}

/// Whether the chart of API composition ends with a question that waits: on the right, and high.
const WAITS: &str = "['ages', 'tooks'].every(line => { \
    const path = document.querySelector(`.columns article:nth-child(2) .${line}`); \
    const [x, y] = path.getAttribute('d').split(/[ML]/).at(-1).split(' ').map(Number); \
    return x === 300 && y < 25; })";

/// Tab, until a screen reader says this.
async fn tab_to(page: &Page, wanted: &str) {
    let mut passed = Vec::new();
    while page.focused().await.as_deref() != Some(wanted) {
        passed.push(page.focused().await);
        assert!(passed.len() < 100, "{wanted} is not among {passed:?}");
        page.press("Tab").await;
    }
}

/// Counts the events that move from now on.
async fn count_dots(page: &Page) {
    let count = "{ window.moved = 0; \
        new MutationObserver(() => window.moved += 1) \
        .observe(document.querySelector('.dots'), {childList: true}) }";
    page.evaluate(count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_sees_composition_fail_without_orders_and_the_replica_answer() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let dev = Dev::start().await;

    // With the keyboard.
    let page = browser.open(dev.room(), Options::default()).await;
    styles(&page, ["good"; 3]).await;
    assert_eq!(page.path().await, "/", "the token has become a cookie");
    tab_to(&page, "button: Kill orders").await;
    page.press("Enter").await;
    styles(&page, ["good", "bad", "bad"]).await;
    page.wait_for_text("orders is killed.").await;
    page.wait_until(
        "document.querySelector('[role=log]').innerText.includes('API composition fails')",
    )
    .await;
    let answers = page.texts(".columns .answer").await;
    assert!(answers[0].contains("products, the newest: "), "{answers:?}");
    assert!(
        answers[1].starts_with("No answer: 503 (orders"),
        "{answers:?}"
    );
    assert!(page.focused().await.as_deref() == Some("button: Kill orders"));
    page.assert_sound("without orders", &[]).await;
    tab_to(&page, "button: Start orders").await;
    page.press("Enter").await;
    styles(&page, ["good"; 3]).await;

    // A question that is still waiting grows older, in words and in the chart.
    let process = "/processes/purchases-composition";
    page.click(&format!("button[formaction='{process}/pause']"))
        .await;
    page.wait_for_text("waiting for").await;
    page.wait_until(WAITS).await;
    page.wait_for_text("last answer").await;
    page.click(&format!("button[formaction='{process}/continue']"))
        .await;
    styles(&page, ["good"; 3]).await;
    page.wait_until(&format!("!{WAITS}")).await;

    count_dots(&page).await;
    page.click("button[formaction='/orders/100']").await;
    page.wait_until("window.moved > 0").await;
    page.wait_for_text("Placed 100 orders").await;

    // Small, dark and without motion.
    let calm = Options {
        colours: Colours::Dark,
        reduced_motion: true,
        width: 360,
        ..Options::default()
    };
    let calm = browser.open(dev.room(), calm).await;
    styles(&calm, ["good"; 3]).await;
    let buttons = calm.focus_order().await;
    for name in ["Pause users", "Stop purchases", "Kill nats-server"] {
        let button = format!("button: {name}");
        assert!(buttons.contains(&button), "{button}: {buttons:?}");
    }
    count_dots(&calm).await;
    calm.click("button[formaction='/orders/100']").await;
    let store = "Number(document.querySelector('[data-bind=\"text:store.orders\"]').textContent)";
    calm.wait_until(&format!("{store} >= 115")).await;
    assert_eq!(calm.evaluate("window.moved").await, 0);
    calm.assert_sound("small, dark and calm", &[]).await;

    // Without a script.
    let plain = Options {
        scripts: false,
        ..Options::default()
    };
    styles(&page, ["good"; 3]).await;
    let plain = browser.open(dev.room(), plain).await;
    assert_eq!(
        plain.attributes(".columns article", "data-is").await,
        ["good"; 3]
    );
    plain
        .click(".try button[formaction='/processes/orders/kill']")
        .await;
    let label = "document.querySelector(\"[data-bind='text:process.orders.label']\").textContent";
    plain.wait_until(&format!("{label} === 'Start'")).await;
    assert_eq!(plain.path().await, "/");
    plain.assert_sound("without a script", &[]).await;
    styles(&page, ["good", "bad", "bad"]).await;
    plain
        .click("button[formaction='/processes/orders/start']")
        .await;
    plain.wait_for_text("orders is started.").await;
    styles(&page, ["good"; 3]).await;
    page.assert_sound("in the end", &[]).await;
    dev.stop().await;
}
