//! Only their own user can read the files of the services and of `cargo dev`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use e2e::{Service, World};
use headwater::operator::RebuildState;
use rustix::fs::Mode;

/// The files in the world's folder whose names begin with `name`, with their modes; without links,
/// which have no mode, and without logs, which are the test's.
fn modes(world: &World, name: &str) -> Vec<(PathBuf, u32)> {
    let folder = world.database(Service::Users);
    let entries = fs::read_dir(folder.parent().unwrap()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let ours = paths.filter(|path| {
        let own = path.file_name().unwrap().to_string_lossy().into_owned();
        own.starts_with(name)
            && path.extension().is_none_or(|end| end != "log")
            && !path.is_symlink()
    });
    ours.map(|path| {
        let mode = mode(&path);
        (path, mode)
    })
    .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_and_what_lies_beside_them_are_private_whatever_the_umask_is() {
    // The services inherit this umask.
    let umask = rustix::process::umask(Mode::empty());
    let mut world = World::on_host().start().await;
    rustix::process::umask(umask);
    let (ada, mug) = (world.user("ada").await, world.product("Mug").await);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    assert_eq!(world.rebuild("rebuild").await.state, RebuildState::Done);
    world.order(&ada, &[&mug]).await;
    world.caught_up().await;
    for service in [
        Service::Users,
        Service::Products,
        Service::Orders,
        Service::Purchases,
    ] {
        let found = modes(&world, &format!("{}.", service.name()));
        for kind in ["-wal", "-shm", ".lock"] {
            let is_there = |(path, _): &(PathBuf, u32)| path.to_string_lossy().ends_with(kind);
            assert!(found.iter().any(is_there), "{kind}: {found:?}");
        }
        for (path, mode) in found {
            assert_eq!(mode, 0o600, "{} has mode {mode:o}", path.display());
        }
    }
    let keys = world.database(Service::Users).with_extension("keys");
    assert_eq!(mode(&keys), 0o600);

    // As an older version left them.
    world.stop(Service::Users).await;
    fs::set_permissions(&keys, Permissions::from_mode(0o664)).unwrap();
    for (path, _) in modes(&world, "users.db") {
        fs::set_permissions(path, Permissions::from_mode(0o664)).unwrap();
    }
    world.run(Service::Users).await;
    for (path, mode) in modes(&world, "users.db") {
        assert_eq!(mode, 0o600, "{} has mode {mode:o}", path.display());
    }
    assert_eq!(mode(&keys), 0o600);
    world.finish().await;
}
