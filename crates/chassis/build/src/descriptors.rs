//! From `.proto` files to descriptors.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use protox::Compiler;
use protox::file::{
    ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, FileDescriptor, ReflectMessage as _, Value,
};

use crate::Error;

/// The name of the file with the options, as it is imported.
pub(crate) const OPTIONS: &str = "headwater/options.proto";

/// The folder's files, compiled.
pub(crate) struct Compiled {
    pub(crate) folder: PathBuf,
    pub(crate) pool: DescriptorPool,
    /// The names of the folder's files, sorted.
    names: Vec<String>,
}

impl Compiled {
    /// The folder's own files, sorted by name.
    pub(crate) fn files(&self) -> impl Iterator<Item = FileDescriptor> {
        let file = |name: &String| self.pool.get_file_by_name(name);
        self.names.iter().filter_map(file)
    }

    /// The own files and their imports, but none that only [`OPTIONS`] needs; imports first.
    pub(crate) fn needed(&self) -> impl Iterator<Item = FileDescriptor> {
        let mut needed = BTreeSet::new();
        let mut pending: Vec<FileDescriptor> = self.files().collect();
        while let Some(file) = pending.pop() {
            if file.name() != OPTIONS && needed.insert(file.name().to_owned()) {
                pending.extend(file.dependencies());
            }
        }
        let all = self.pool.files();
        all.filter(move |file| needed.contains(file.name()))
    }
}

/// Finds [`OPTIONS`].
struct BuiltIn;

impl FileResolver for BuiltIn {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match name {
            OPTIONS => File::from_source(name, include_str!("../proto/headwater/options.proto")),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

pub(crate) fn compile(folder: &Path) -> Result<Compiled, Error> {
    let mut names = Vec::new();
    find(folder, "", &mut names)?;
    names.retain(|name| name != OPTIONS);
    names.sort();
    if names.is_empty() {
        let folder = folder.display();
        return Err(Error(format!("there is no .proto file in {folder}")));
    }
    let mut resolver = ChainFileResolver::new();
    resolver.add(BuiltIn);
    resolver.add(IncludeFileResolver::new(folder.to_owned()));
    resolver.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(resolver);
    for name in [OPTIONS]
        .into_iter()
        .chain(names.iter().map(|name| &**name))
    {
        compiler
            .open_file(name)
            .map_err(|error| invalid(folder, &error))?;
    }
    Ok(Compiled {
        folder: folder.to_owned(),
        pool: compiler.descriptor_pool(),
        names,
    })
}

/// Adds the `.proto` files of `folder`, named `prefix` and their path in it.
fn find(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<(), Error> {
    let unreadable = |error| Error::io("read the folder", folder, &error);
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            find(&path, &format!("{name}/"), names)?;
        } else if path.extension().is_some_and(|it| it == "proto") {
            names.push(name);
        }
    }
    Ok(())
}

/// Debug has the file, the line and the column; Display has not.
fn invalid(folder: &Path, error: &protox::Error) -> Error {
    let text = format!("{error:?}");
    let text = match error.file() {
        Some(_) => format!("{}/{text}", folder.display()),
        None => text,
    };
    let advice = ADVICE.iter().find(|(about, _)| text.contains(about));
    Error(advice.map_or(text.clone(), |(_, advice)| {
        format!("{text}: write {advice}")
    }))
}

/// What protox reports about a wrong option, and what to write.
const ADVICE: [(&str, &str); 3] = [
    (
        "type 'headwater.Event'",
        "`{ name: \"placed\" key: \"user_id\" }` with your name and key",
    ),
    (
        "type 'headwater.Question'",
        "`{ name: \"asked\" answer: \"UserAnswered\" }` with your name and answer",
    ),
    (
        "'headwater.",
        "`import \"headwater/options.proto\";` and `headwater.event`, `headwater.question` or \
         `headwater.personal`",
    ),
];

/// For prost-build, with the comments.
pub(crate) fn for_types(compiled: &Compiled) -> FileDescriptorSet {
    let files = compiled.needed();
    FileDescriptorSet {
        file: files
            .map(|file| file.file_descriptor_proto().clone())
            .collect(),
    }
}

/// A `FileDescriptorSet` in which the options are unknown fields: [`OPTIONS`] is not imported.
pub(crate) fn without_options(compiled: &Compiled) -> Vec<u8> {
    // Not the types of prost: those drop unknown fields.
    let mut set = DynamicMessage::new(FileDescriptorSet::default().descriptor());
    let files = compiled.needed().map(|file| {
        let own = FileDescriptorProto::default().descriptor();
        let mut own =
            DynamicMessage::decode(own, &*file.encode_to_vec()).expect("it was encoded just now");
        own.clear_field_by_name("source_code_info");
        let proto = file.file_descriptor_proto();
        let gone = proto.dependency.iter().position(|name| name == OPTIONS);
        if let Some(gone) = gone.and_then(|gone| i32::try_from(gone).ok()) {
            let kept = proto.dependency.iter().filter(|name| *name != OPTIONS);
            let kept = kept.cloned().map(Value::String).collect();
            own.set_field_by_name("dependency", Value::List(kept));
            let public = proto.public_dependency.iter().filter(|at| **at != gone);
            let public = public.map(|at| Value::I32(at - i32::from(*at > gone)));
            own.set_field_by_name("public_dependency", Value::List(public.collect()));
        }
        Value::Message(own)
    });
    let files = Value::List(files.collect());
    set.set_field_by_name("file", files);
    set.encode_to_vec()
}
