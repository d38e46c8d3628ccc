//! Input as from a person: the browser handles it as it handles a mouse and a keyboard.

use serde_json::{Value, json};

use super::page::Page;

/// The most elements that a reader may reach with Tab.
const STOPS_MAX: usize = 500;

/// Keys with a name: code, number, and the text that they type.
const KEYS: [(&str, &str, u32, &str); 9] = [
    ("Tab", "Tab", 9, ""),
    ("Enter", "Enter", 13, "\r"),
    ("Escape", "Escape", 27, ""),
    (" ", "Space", 32, " "),
    ("ArrowLeft", "ArrowLeft", 37, ""),
    ("ArrowUp", "ArrowUp", 38, ""),
    ("ArrowRight", "ArrowRight", 39, ""),
    ("ArrowDown", "ArrowDown", 40, ""),
    ("Backspace", "Backspace", 8, ""),
];

impl Page {
    /// Clicks the middle of the first element for a CSS selector, once it exists.
    pub async fn click(&self, selector: &str) {
        self.wait_for(selector).await;
        let element = Value::from(selector);
        let place = self
            .evaluate(&format!(
                "(() => {{ \
                 const e = document.querySelector({element}); \
                 e.scrollIntoView({{block: 'center', behavior: 'instant'}}); \
                 const box = e.getBoundingClientRect(); \
                 const [x, y] = [box.x + box.width / 2, box.y + box.height / 2]; \
                 const top = document.elementFromPoint(x, y); \
                 return {{x, y, hidden: !(e.contains(top) || top?.contains(e))}}; \
                 }})()"
            ))
            .await;
        assert_eq!(place["hidden"], false, "{selector} cannot be clicked");
        for kind in ["mousePressed", "mouseReleased"] {
            let mouse = json!({
                "type": kind, "x": place["x"], "y": place["y"], "button": "left", "clickCount": 1,
            });
            self.call("Input.dispatchMouseEvent", mouse).await;
        }
    }

    /// Presses and releases a key: `Tab`, `Enter`, `Escape`, `Backspace`, an arrow, or a character.
    pub async fn press(&self, key: &str) {
        self.press_with(key, 0).await;
    }

    /// Presses Tab while Shift is down.
    pub async fn press_shift_tab(&self) {
        self.press_with("Tab", 8).await;
    }

    async fn press_with(&self, key: &str, modifiers: u32) {
        let known = KEYS.iter().find(|(name, ..)| *name == key);
        let (code, number, text) = known.map_or(("", 0, key), |&(_, code, number, text)| {
            (code, number, text)
        });
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({
                "type": kind, "key": key, "code": code, "windowsVirtualKeyCode": number,
                "modifiers": modifiers,
            });
            if kind == "keyDown" {
                event["text"] = text.into();
            }
            self.call("Input.dispatchKeyEvent", event).await;
        }
    }

    /// Types into the element that has the focus.
    pub async fn type_text(&self, text: &str) {
        for character in text.chars() {
            self.press(&character.to_string()).await;
        }
    }

    /// The role and the name of the element with the focus, as a screen reader says them:
    /// `link: Older`. `None` if no element has it.
    pub async fn focused(&self) -> Option<String> {
        let focused = "document.activeElement === document.body ? null : document.activeElement";
        let focused = json!({ "expression": focused });
        let focused = self.call("Runtime.evaluate", focused).await;
        let element = focused["result"]["objectId"].as_str()?;
        let element = json!({ "objectId": element, "fetchRelatives": false });
        let element = self.call("Accessibility.getPartialAXTree", element).await;
        let element = &element["nodes"][0];
        let part = |part: &str| element[part]["value"].as_str().unwrap_or_default();
        Some(format!("{}: {}", part("role"), part("name")))
    }

    /// The elements that Tab reaches one after another, from where the focus is to the end of the
    /// page.
    ///
    /// # Panics
    /// Tab never leaves the page.
    pub async fn focus_order(&self) -> Vec<String> {
        let mut order = Vec::new();
        while order.len() < STOPS_MAX {
            self.press("Tab").await;
            let Some(element) = self.focused().await else {
                return order;
            };
            order.push(element);
        }
        panic!("Tab never leaves the page: {order:?}");
    }
}
