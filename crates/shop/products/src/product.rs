//! Products, and the validation of requests.

use headwater::text::{self, Unfit};
use serde::{Deserialize, Deserializer, Serialize};
use shop_events::{ProductCreated, ProductUpdated};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::address::{self, Hosts};
use crate::image::ImageId;

/// The longest title, in characters.
const TITLE_MAX: usize = 200;

/// The longest image reference, in characters.
const IMAGE_MAX: usize = 2048;

/// A product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Product {
    pub(crate) id: Uuid,
    #[schema(example = "Enamel mug, river green")]
    pub(crate) title: String,
    /// An http(s) URL, or the path of an uploaded image.
    #[schema(example = "https://example.com/mug.webp")]
    pub(crate) image: String,
}

/// A request to create a product.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateProduct {
    /// The product's id, if the client chooses it.
    pub(crate) id: Option<Uuid>,
    /// One line with at least one visible character, and none that overrides the text direction.
    #[schema(
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*[^\s\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069][^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*$",
        example = "Enamel mug, river green"
    )]
    pub(crate) title: String,
    /// An http(s) URL on a public host, without a user name, or a path from `POST /images`. Every
    /// value that fits the pattern is accepted, unless its host is on a private network (`.local`).
    /// Other URLs on public hosts are accepted too.
    #[schema(
        max_length = 2048,
        pattern = r"^(https?://([A-Za-z0-9]+(-[A-Za-z0-9]+)*\.)+[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*(:[0-9]{1,4})?([/?#][^\s]*)?|/images/[0-9a-f]{64})$",
        example = "https://example.com/mug.webp"
    )]
    pub(crate) image: String,
}

/// A request to change a product. A field that is left out keeps its value.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
pub(crate) struct UpdateProduct {
    /// One line with at least one visible character, and none that overrides the text direction.
    #[serde(default, deserialize_with = "present")]
    #[schema(
        nullable = false,
        min_length = 1,
        max_length = 200,
        pattern = r"^[^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*[^\s\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069][^\u0000-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]*$"
    )]
    pub(crate) title: Option<String>,
    /// As for a new product.
    #[serde(default, deserialize_with = "present")]
    #[schema(
        nullable = false,
        max_length = 2048,
        pattern = r"^(https?://([A-Za-z0-9]+(-[A-Za-z0-9]+)*\.)+[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*(:[0-9]{1,4})?([/?#][^\s]*)?|/images/[0-9a-f]{64})$"
    )]
    pub(crate) image: Option<String>,
}

/// Deserializes a field that may be left out, but must not be `null`.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    String::deserialize(deserializer).map(Some)
}

/// The target of an image reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Image {
    /// An address on the web.
    Url,
    /// An upload, which must exist.
    Upload(ImageId),
}

/// Why a product is rejected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    #[error(
        "there is a product {0} from another request; leave the id out for a new product, or PATCH this one"
    )]
    IdTaken(Uuid),
    #[error("{} of the product's fields are invalid", .0.len())]
    Invalid(Vec<Invalid>),
}

/// Why a product or one of its fields is invalid.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("give a title, an image, or both")]
    Nothing,
    #[error("must have 1 to {TITLE_MAX} characters")]
    TitleLength,
    #[error("{0}")]
    Title(Unfit),
    #[error("must have at most {IMAGE_MAX} characters")]
    ImageLength,
    #[error("{0}")]
    Image(address::Unfit),
    #[error("this upload does not exist; POST /images first")]
    UnknownUpload,
}

impl CreateProduct {
    /// Checks the fields; returns the image that they refer to.
    pub(crate) fn check(&self, hosts: Hosts) -> Result<Image, Rejection> {
        match (check_title(&self.title), check_image(&self.image, hosts)) {
            (Ok(()), Ok(image)) => Ok(image),
            (title, image) => Err(all_of([title.err(), image.err()])),
        }
    }
}

impl UpdateProduct {
    /// Checks the fields; returns the image that they refer to, if any.
    pub(crate) fn check(&self, hosts: Hosts) -> Result<Option<Image>, Rejection> {
        if self.title.is_none() && self.image.is_none() {
            return Err(all_of([Some(Invalid::Nothing), None]));
        }
        let title = self.title.as_deref().map(check_title).transpose();
        let image = self.image.as_deref().map(|image| check_image(image, hosts));
        match (title, image.transpose()) {
            (Ok(_), Ok(image)) => Ok(image),
            (title, image) => Err(all_of([title.err(), image.err()])),
        }
    }
}

fn all_of(wrong: [Option<Invalid>; 2]) -> Rejection {
    Rejection::Invalid(wrong.into_iter().flatten().collect())
}

fn check_title(title: &str) -> Result<(), Invalid> {
    if !(1..=TITLE_MAX).contains(&title.chars().count()) {
        return Err(Invalid::TitleLength);
    }
    text::check_line(title).map_err(Invalid::Title)
}

/// The target of an image reference, if the reference is valid.
fn check_image(image: &str, hosts: Hosts) -> Result<Image, Invalid> {
    if image.chars().count() > IMAGE_MAX {
        return Err(Invalid::ImageLength);
    }
    if let Some(upload) = ImageId::from_path(image) {
        return Ok(Image::Upload(upload));
    }
    address::check(image, hosts).map_err(Invalid::Image)?;
    Ok(Image::Url)
}

impl Product {
    /// This product with the changes of `update`.
    pub(crate) fn updated(&self, update: UpdateProduct) -> Self {
        Self {
            id: self.id,
            title: update.title.unwrap_or_else(|| self.title.clone()),
            image: update.image.unwrap_or_else(|| self.image.clone()),
        }
    }

    pub(crate) fn created_event(&self) -> ProductCreated {
        ProductCreated {
            product_id: self.id.to_string(),
            title: self.title.clone(),
            image: self.image.clone(),
        }
    }

    pub(crate) fn updated_event(&self) -> ProductUpdated {
        ProductUpdated {
            product_id: self.id.to_string(),
            title: self.title.clone(),
            image: self.image.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(title: &str, image: &str) -> Result<Image, Rejection> {
        let (title, image) = (title.to_owned(), image.to_owned());
        CreateProduct {
            id: None,
            title,
            image,
        }
        .check(Hosts::Public)
    }

    #[test]
    fn titles_have_one_to_two_hundred_characters() {
        let image = "https://example.com/x.png";
        for right in ["x", &"ü".repeat(200)] {
            assert_eq!(create(right, image), Ok(Image::Url), "{right}");
        }
        for wrong in ["", "  ", "\t", "a\u{202e}b", "\u{3164}", &"ü".repeat(201)] {
            assert!(create(wrong, image).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn images_are_web_addresses_or_uploads() {
        assert_eq!(create("x", "http://example.com/a.png"), Ok(Image::Url));
        let upload = format!("/images/{}", "0a".repeat(32));
        assert!(matches!(create("x", &upload), Ok(Image::Upload(_))));
        for wrong in [
            "",
            "mug.png",
            "/etc/passwd",
            "/images/",
            "/images/mug.svg",
            "javascript:alert(1)",
            "data:image/png;base64,AAAA",
            "ftp://example.com/x",
            "https://",
            "//example.com/x",
            &format!("/images/{}/..", "0a".repeat(32)),
            &format!("https://example.com/{}", "x".repeat(2048)),
        ] {
            assert!(create("x", wrong).is_err(), "{wrong:?}");
        }
    }
}
