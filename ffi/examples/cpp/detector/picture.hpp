// Drawing boxes into a picture, and writing it as a PNG without a library: its
// pixels are stored, not compressed.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <torch/torch.h>

namespace detector {

using Colour = std::array<std::uint8_t, 3>;

// An image, [3, H, W] of 0 to 1, enlarged, with room for lines.
class Picture {
 public:
  Picture(const torch::Tensor& image, int scale)
      : scale_(scale),
        pixels_((image.clamp(0, 1) * 255)
                    .to(torch::kUInt8)
                    .repeat_interleave(scale, 1)
                    .repeat_interleave(scale, 2)
                    .permute({1, 2, 0})
                    .contiguous()) {}

  // A box's outline, `box` being x1, y1, x2, y2 in pixels of the image.
  void outline(const torch::Tensor& box, const Colour& colour, int thickness) {
    const auto corner = [&](std::int64_t index, std::int64_t size) {
      const auto place = std::lround(box[index].item<double>() * scale_);
      return static_cast<int>(std::clamp<long>(place, 0, size - 1));
    };
    const int left = corner(0, pixels_.size(1)), right = corner(2, pixels_.size(1));
    const int top = corner(1, pixels_.size(0)), bottom = corner(3, pixels_.size(0));
    for (int row = top; row <= bottom; ++row) {
      for (int column = left; column <= right; ++column) {
        const int inward =
            std::min({row - top, bottom - row, column - left, right - column});
        if (inward < thickness) {
          auto* const pixel = pixels_.data_ptr<std::uint8_t>() +
              (row * pixels_.size(1) + column) * 3;
          std::copy(colour.begin(), colour.end(), pixel);
        }
      }
    }
  }

  // [H, W, 3], uint8.
  const torch::Tensor& pixels() const { return pixels_; }

 private:
  int scale_;
  torch::Tensor pixels_;
};

// The parts of a PNG file.
class PngWriter {
 public:
  // `pixels` are [H, W, 3], uint8.
  static std::string encode(const torch::Tensor& pixels) {
    std::string head;
    append(head, static_cast<std::uint32_t>(pixels.size(1)));
    append(head, static_cast<std::uint32_t>(pixels.size(0)));
    head += std::string("\x08\x02\x00\x00\x00", 5);  // 8 bits, colour, not interlaced
    return "\x89PNG\r\n\x1a\n" + chunk("IHDR", head) + chunk("IDAT", deflate(rows(pixels))) +
        chunk("IEND", "");
  }

 private:
  // Each row behind a 0: no filter.
  static std::string rows(const torch::Tensor& pixels) {
    const auto row_size = static_cast<std::size_t>(pixels.size(1) * 3);
    const auto* data = reinterpret_cast<const char*>(pixels.data_ptr<std::uint8_t>());
    std::string bytes;
    for (std::int64_t row = 0; row < pixels.size(0); ++row, data += row_size) {
      bytes.push_back('\0');
      bytes.append(data, row_size);
    }
    return bytes;
  }

  // A zlib stream of stored blocks, each with its length and that inverted.
  static std::string deflate(const std::string& bytes) {
    constexpr std::size_t longest = 65535;
    std::string stream = "\x78\x01";
    for (std::size_t start = 0; start < bytes.size(); start += longest) {
      const std::size_t size = std::min(longest, bytes.size() - start);
      stream.push_back(start + size == bytes.size() ? '\1' : '\0');
      for (const std::size_t half : {size, ~size}) {
        stream.push_back(static_cast<char>(half & 0xff));
        stream.push_back(static_cast<char>(half >> 8 & 0xff));
      }
      stream.append(bytes, start, size);
    }
    append(stream, adler(bytes));
    return stream;
  }

  static std::string chunk(const std::string& kind, const std::string& content) {
    std::string bytes;
    append(bytes, static_cast<std::uint32_t>(content.size()));
    bytes += kind + content;
    append(bytes, crc(kind + content));
    return bytes;
  }

  // The highest byte first.
  static void append(std::string& bytes, std::uint32_t number) {
    for (int shift = 24; shift >= 0; shift -= 8) {
      bytes.push_back(static_cast<char>(number >> shift & 0xff));
    }
  }

  static std::uint32_t adler(const std::string& bytes) {
    std::uint32_t sum = 1, sum_of_sums = 0;
    for (const char byte : bytes) {
      sum = (sum + static_cast<std::uint8_t>(byte)) % 65521;
      sum_of_sums = (sum_of_sums + sum) % 65521;
    }
    return sum_of_sums << 16 | sum;
  }

  static std::uint32_t crc(const std::string& bytes) {
    std::uint32_t remainder = ~0u;
    for (const char byte : bytes) {
      remainder ^= static_cast<std::uint8_t>(byte);
      for (int bit = 0; bit < 8; ++bit) {
        remainder = remainder >> 1 ^ (remainder & 1 ? 0xedb88320u : 0);
      }
    }
    return ~remainder;
  }
};

// Writes pictures of one size, four in a row, to a PNG file.
inline void write_png(const std::string& path, const std::vector<Picture>& pictures) {
  constexpr std::size_t across = 4;
  std::vector<torch::Tensor> lines;
  for (std::size_t start = 0; start < pictures.size(); start += across) {
    std::vector<torch::Tensor> line;
    for (std::size_t index = start; index < start + across; ++index) {
      line.push_back(
          index < pictures.size() ? pictures[index].pixels()
                                  : torch::zeros_like(pictures[0].pixels()));
    }
    lines.push_back(torch::cat(line, 1));
  }
  std::ofstream file(path, std::ios::binary);
  file << PngWriter::encode(torch::cat(lines, 0).contiguous());
  if (!file.flush()) {
    throw std::runtime_error(path + " cannot be written");
  }
}

}  // namespace detector
