//! The outbox: append-only, one source, bounded events.

use headwater::database::WriteError;
use headwater::{MAX_PAYLOAD, outbox};
use sea_orm::DbErr;

use crate::support::{GaugeRead, Refused, append, execute, folder, large, open, read, reads};

#[tokio::test]
async fn an_event_is_there_as_it_was_appended() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let event = read("attic", 21);
    append(&db, vec![event.clone()]).await;
    let row = db
        .read(|snapshot| outbox::page(snapshot, 1, 10))
        .await
        .unwrap()
        .remove(0);
    assert_eq!(row.position, 1);
    assert_eq!(row.key, "attic");
    assert_eq!(row.subject, headwater::subject_of(&event));
    assert_eq!(row.payload, prost::Message::encode_to_vec(&event));
    assert!(row.recorded_at > 1_700_000_000_000);
}

#[tokio::test]
async fn a_page_begins_where_it_is_asked_to_and_is_bounded() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=10)).await;
    let page = async |from, limit| {
        let page = db
            .read(move |snapshot| outbox::page(snapshot, from, limit))
            .await
            .unwrap();
        page.iter().map(|row| row.position).collect::<Vec<_>>()
    };
    assert_eq!(page(4, 3).await, [4, 5, 6]);
    assert_eq!(page(9, 100).await, [9, 10]);
    assert_eq!(page(11, 100).await, [] as [u64; 0]);
}

#[tokio::test]
async fn an_event_cannot_be_changed_or_deleted() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    append(&db, reads(1..=1)).await;
    for sql in [
        "UPDATE headwater_outbox SET key = 'other'",
        "DELETE FROM headwater_outbox",
    ] {
        let refused = db.write(move |tx| execute(tx, sql, [])).await;
        let Err(Refused::Refused(error)) = refused else {
            panic!("{sql} gave {refused:?}");
        };
        assert!(
            error.to_string().contains("the outbox is append-only"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn an_event_that_is_too_large_is_refused() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    for (event, limit) in [
        (large(1, MAX_PAYLOAD), "524288"),
        (read(&"x".repeat(2000), 1), "1024"),
    ] {
        let refused = db.write(move |tx| outbox::append(tx, &event)).await;
        let Err(Refused::Refused(DbErr::Custom(why))) = refused else {
            panic!("{refused:?}");
        };
        assert!(
            why.contains(&format!("exceeds the limit of {limit}")),
            "{why}"
        );
    }
    let fits = large(1, MAX_PAYLOAD - 20);
    assert_eq!(append(&db, vec![fits]).await, 1);
}

#[tokio::test]
async fn an_event_of_another_source_panics_its_own_write_only() {
    let folder = folder();
    let db = open(&folder, "sensors").await;
    let gauge = GaugeRead {
        gauge: "oil".to_owned(),
        value: 1,
    };
    let wrong = db.write(move |tx| outbox::append(tx, &gauge));
    let right = db.write(|tx| outbox::append(tx, &read("attic", 1)));
    let (wrong, right) = tokio::join!(wrong, right);
    assert!(matches!(wrong, Err(WriteError::Panicked)));
    assert_eq!(right.unwrap().value.position, 1);
}
