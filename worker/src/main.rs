//! The `muneem` binary: see `muneem --help`.

fn main() -> std::process::ExitCode {
    muneem::cli::main()
}
