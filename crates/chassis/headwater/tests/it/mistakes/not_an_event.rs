use headwater::prelude::*;

#[derive(Clone, PartialEq, prost::Message)]
struct ReviewWritten {
    #[prost(string, tag = "1")]
    product_id: String,
}

fn append(tx: &Tx, written: &ReviewWritten) -> Result<Position, DbErr> {
    outbox::append(tx, written)
}
