//! Limits of questions and answers.

/// The most products per question. If the answer would be too large, the question is refused, and
/// the caller asks for fewer products.
pub const PRODUCTS_MAX: usize = 50;

/// The most users per question about names, and per answer.
pub const NAMES_MAX: usize = 100;

/// An upper bound of the bytes that `message` takes as a field of another message.
pub fn field_bytes(message: &impl prost::Message) -> usize {
    const NUMBER_AND_LENGTH: usize = 8;
    message.encoded_len() + NUMBER_AND_LENGTH
}
