//! Real input through the public APIs, compared with what the files say.

use cli::Exit;
use e2e::data::DataSet;
use e2e::{Service, World};

/// The sample data if it exists next to the project, and a made-up shop everywhere.
fn data_sets() -> impl Iterator<Item = DataSet> {
    let seed = 20_261_122;
    DataSet::sample()
        .into_iter()
        .chain([DataSet::made_up(seed, 150, 120, 300)])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_shown_to_every_user_and_a_second_one_changes_nothing() {
    for data in data_sets() {
        let world = World::start().await;
        let first = data.import(&world).await;
        assert_eq!(first.exit(), Exit::Done, "{first:?}");
        data.assert_shown(&world).await;
        let heads = world.heads().await;

        let second = data.import(&world).await;
        assert_eq!(second.exit(), Exit::Done, "{second:?}");
        assert_eq!(
            world.heads().await,
            heads,
            "nothing was written, nothing published"
        );
        data.assert_shown(&world).await;
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_while_purchases_is_down_is_shown_once_it_is_back() {
    for data in data_sets() {
        let mut world = World::start().await;
        world.stop(Service::Purchases).await;
        assert_eq!(data.import(&world).await.exit(), Exit::Done);
        world.run(Service::Purchases).await;
        data.assert_shown(&world).await;
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_read_store_is_folded_again_by_replay() {
    for data in data_sets() {
        let mut world = World::start().await;
        assert_eq!(data.import(&world).await.exit(), Exit::Done);
        data.assert_shown(&world).await;
        world.stop(Service::Purchases).await;
        world.delete_database(Service::Purchases);
        world.run(Service::Purchases).await;
        data.assert_shown(&world).await;
        world.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_are_left_out_and_the_rest_is_imported() {
    let data = DataSet::made_up(7, 20, 20, 40);
    let users = std::fs::read_to_string(data.file("users.jsonl")).unwrap();
    let bad = "{\"id\": 900, \"name\": \"x\"}\nnot json\n{\"id\": 901, \"name\": \"\", \"email\": \"a@b\"}\n";
    let orders = std::fs::read_to_string(data.file("orders.jsonl")).unwrap();
    let world = World::start().await;
    std::fs::write(data.file("users.jsonl"), format!("{bad}{users}")).unwrap();
    let lost = "{\"id\": 902, \"user_id\": 901, \"product_ids\": [1]}\n";
    std::fs::write(data.file("orders.jsonl"), format!("{orders}{lost}")).unwrap();
    let summary = data.import(&world).await;
    assert_eq!(summary.exit(), Exit::Failed, "{summary:?}");
    assert_eq!((summary.users.failed, summary.orders.failed), (3, 1));
    assert_eq!((summary.users.imported, summary.orders.imported), (20, 40));
    std::fs::write(data.file("users.jsonl"), users).unwrap();
    std::fs::write(data.file("orders.jsonl"), orders).unwrap();
    data.assert_shown(&world).await;
    world.finish().await;
}
