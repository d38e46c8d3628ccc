use std::sync::Arc;

use headwater::prelude::*;

struct Reviews;

impl Projection for Reviews {
    const NAME: &'static str = "reviews";
    const VERSION: u32 = 1;
    const SOURCES: &'static [&'static str] = &["reviews"];

    fn apply(&self, _: &Tx, _: &[Envelope]) -> Result<(), ApplyError> {
        Ok(())
    }
}

async fn run(mut service: Service) -> headwater::Result {
    service.project(Arc::new(Reviews)).await?;
    Ok(())
}
