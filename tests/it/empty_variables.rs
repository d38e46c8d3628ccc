//! An empty environment variable counts as unset, as in compose files and units.

use e2e::{Service, World};

fn variables(command: &clap::Command) -> Vec<String> {
    let named = command.get_arguments().filter_map(clap::Arg::get_env);
    named
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_service_starts_with_all_its_variables_empty() {
    let mut world = World::on_host().empty();
    for (service, command) in [
        (
            Service::Users,
            headwater::command::<headwater::Config>(&users::ABOUT),
        ),
        (
            Service::Products,
            headwater::command::<products::Config>(&products::ABOUT),
        ),
        (
            Service::Orders,
            headwater::command::<orders::Config>(&orders::ABOUT),
        ),
        (
            Service::Purchases,
            headwater::command::<purchases::Config>(&purchases::ABOUT),
        ),
    ] {
        let empty = variables(&command);
        assert!(empty.len() > 20, "{empty:?}");
        world
            .run_with(service, |command| {
                command.envs(empty.iter().map(|name| (name, "")));
                command.args(["--listen", "127.0.0.1:0"]);
            })
            .await;
    }
    world.in_touch().await;
    world.finish().await;
}
