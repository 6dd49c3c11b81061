// The dynamic symbols of a library. Each offset in the file is checked before it is used.
#include "elf.hpp"

#include <elf.h>
#include <link.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace bridge {

namespace {

using Header = ElfW(Ehdr);
using Section = ElfW(Shdr);
using ElfSymbol = ElfW(Sym);
using Dynamic = ElfW(Dyn);

constexpr unsigned char native_class = sizeof(void*) == 8 ? ELFCLASS64 : ELFCLASS32;

// The header of this program.
Header own_header() {
    Header header{};
    std::ifstream file("/proc/self/exe", std::ios::binary);
    file.read(reinterpret_cast<char*>(&header), sizeof header);
    return header;
}

// The bytes of a file.
class Bytes {
public:
    explicit Bytes(const std::string& path) {
        std::ifstream file(path, std::ios::binary);
        if (!file) throw std::runtime_error("cannot be read: " + std::string(std::strerror(errno)));
        bytes_.assign(std::istreambuf_iterator<char>(file), {});
    }

    template <class T>
    T at(std::size_t offset) const {
        T value;
        if (offset > bytes_.size() || bytes_.size() - offset < sizeof value) {
            throw std::runtime_error("is a damaged ELF library");
        }
        std::memcpy(&value, bytes_.data() + offset, sizeof value);
        return value;
    }

    // The text up to the next zero byte.
    std::string text(std::size_t offset) const {
        if (offset >= bytes_.size()) return {};
        const char* start = bytes_.data() + offset;
        return std::string(start, ::strnlen(start, bytes_.size() - offset));
    }

    bool starts_with(const char* magic, std::size_t size) const {
        return bytes_.size() >= size && std::memcmp(bytes_.data(), magic, size) == 0;
    }

private:
    std::vector<char> bytes_;
};

void check_header(const Header& header) {
    if (header.e_ident[EI_CLASS] != native_class || header.e_machine != own_header().e_machine) {
        throw std::runtime_error("is an ELF library for another kind of machine");
    }
    if (header.e_type != ET_DYN) throw std::runtime_error("is an ELF file, but not a shared library (`-shared`)");
}

}

Library read_library(const std::string& path) {
    const Bytes bytes(path);
    if (!bytes.starts_with(ELFMAG, SELFMAG)) throw std::runtime_error("is not an ELF library");
    const auto header = bytes.at<Header>(0);
    check_header(header);
    Library library;
    const auto section = [&](std::size_t index) {
        return bytes.at<Section>(header.e_shoff + index * sizeof(Section));
    };
    for (std::size_t index = 0; index < header.e_shnum; ++index) {
        const auto table = section(index);
        if (table.sh_type == SHT_DYNSYM) {
            const auto names = section(table.sh_link);
            for (std::size_t at = 0; at + sizeof(ElfSymbol) <= table.sh_size; at += sizeof(ElfSymbol)) {
                const auto symbol = bytes.at<ElfSymbol>(table.sh_offset + at);
                library.symbols.push_back({bytes.text(names.sh_offset + symbol.st_name), symbol.st_shndx != SHN_UNDEF});
            }
        } else if (table.sh_type == SHT_DYNAMIC) {
            const auto names = section(table.sh_link);
            for (std::size_t at = 0; at + sizeof(Dynamic) <= table.sh_size; at += sizeof(Dynamic)) {
                const auto entry = bytes.at<Dynamic>(table.sh_offset + at);
                if (entry.d_tag == DT_NEEDED) {
                    library.needed.push_back(bytes.text(names.sh_offset + entry.d_un.d_val));
                }
            }
        }
    }
    return library;
}

}
