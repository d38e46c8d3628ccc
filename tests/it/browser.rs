//! The harness of the browser tests: what it must find, and what it does.

use e2e::browser::{Browser, Colours, Options};

/// A page with `body`, and nothing wrong around it: its policy allows images by http.
fn page(body: &str) -> String {
    format!(
        "<!doctype html><html lang='en'><meta name='viewport' content='width=device-width'>\
         <meta http-equiv='content-security-policy' content='img-src http: data:'>\
         <title>x</title><main><h1>x</h1>{body}</main></html>"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_finds_what_is_wrong_with_a_page() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let options = Options::default();
    let sound = browser.open_html(&page("<p>x</p>"), options).await;
    sound.assert_sound("a sound page", &[]).await;

    let inaccessible =
        "<img src='data:,'><p style='color: #aaa; background: #bbb'>hardly there</p>";
    let inaccessible = browser.open_html(&page(inaccessible), options).await;
    let found = inaccessible.axe().await.join("\n");
    assert!(found.contains("image-alt"), "{found}");
    assert!(found.contains("color-contrast"), "{found}");

    let wide = page("<p style='width: 500px'>x</p>");
    let narrow = Options {
        width: 360,
        ..options
    };
    let narrow = browser.open_html(&wide, narrow).await;
    let found = narrow.overflow().await.join("\n");
    assert!(found.contains("500px"), "{found}");
    narrow.resize(1024, 600).await;
    assert_eq!(narrow.overflow().await, [""; 0]);

    for (body, error) in [
        ("<script>console.error('wrong')</script>", "wrong"),
        ("<script>throw new Error('thrown')</script>", "thrown"),
        ("<script>alert('hello')</script>", "dialog: \"hello\""),
        ("<img alt='' src='http://127.0.0.1:9/'>", "ERR_UNSAFE_PORT"),
        ("<img alt='' src='ftp://127.0.0.1/'>", "policy: "),
        (
            "<img alt='' src='http://example.com/'>",
            "ERR_NAME_NOT_RESOLVED",
        ),
    ] {
        let wrong = browser.open_html(&page(body), options).await;
        wrong.wait_until("document.readyState === 'complete'").await;
        e2e::eventually(body, async || {
            let errors = wrong.errors();
            let found = errors.iter().any(|line| line.contains(error));
            if found { Ok(()) } else { Err(errors) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browser_acts_like_a_person() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let form = page(
        "<style>@media (prefers-color-scheme: dark) { h1 { color: red } }</style>\
         <form><label>Name <input name='name'></label> <button>Find</button></form>\
         <a href='#there'>There</a>\
         <script>document.querySelector('h1').textContent = 'scripted'</script>\
         <script>document.querySelector('form').onsubmit = event => { event.preventDefault(); \
         document.querySelector('h1').textContent = `found ${event.target.name.value}` }</script>",
    );
    let dark = Options {
        colours: Colours::Dark,
        ..Options::default()
    };
    let person = browser.open_html(&form, dark).await;
    assert_eq!(person.texts("h1").await, ["scripted"]);
    let colour = "getComputedStyle(document.querySelector('h1')).color";
    assert_eq!(person.evaluate(colour).await, "rgb(255, 0, 0)");
    let order = ["textbox: Name", "button: Find", "link: There"];
    assert_eq!(person.focus_order().await, order);
    person.click("input").await;
    person.type_text("Ada Ö").await;
    person.press("Enter").await;
    person.wait_for_text("found Ada Ö").await;
    person.press("Tab").await;
    assert_eq!(person.focused().await.as_deref(), Some("button: Find"));
    person.press_shift_tab().await;
    assert_eq!(person.focused().await.as_deref(), Some("textbox: Name"));
    person.hide().await;
    person.show().await;
    let image = person.screenshot().await;
    assert!(image.starts_with(b"\x89PNG"), "{} bytes", image.len());

    let without = Options {
        scripts: false,
        ..Options::default()
    };
    let without = browser.open_html(&form, without).await;
    assert_eq!(without.texts("h1").await, ["x"]);
    assert_eq!(without.evaluate(colour).await, "rgb(0, 0, 0)");
    without.assert_sound("a page without scripts", &[]).await;
}
