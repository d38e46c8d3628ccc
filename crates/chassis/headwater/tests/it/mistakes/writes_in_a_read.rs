use headwater::prelude::*;

fn insert(tx: &Tx, id: Uuid) -> Result<(), DbErr> {
    tx.run_raw(raw_sql!(Sqlite, "INSERT INTO review (id) VALUES ({id})"))
}

async fn save(db: Database, id: Uuid) -> Result<(), Problem> {
    db.read(move |snapshot| insert(snapshot, id)).await?;
    Ok(())
}
