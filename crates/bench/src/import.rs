use crate::Bench;
use crate::figure::Figure;
pub(crate) async fn measure(_bench: &Bench) -> anyhow::Result<Figure> {
    anyhow::bail!("not yet")
}
