fn main() -> Result<(), headwater_build::Error> {
    headwater_build::compile("proto")
}
