// What the C++ programs expect: a failure names its line and ends the program.
#pragma once

#include <stdexcept>
#include <string>

#define EXPECT(condition)                                                                 \
  do {                                                                                    \
    if (!(condition)) {                                                                   \
      throw std::logic_error(                                                             \
          std::string(__FILE__) + ":" + std::to_string(__LINE__) + ": " + #condition);    \
    }                                                                                     \
  } while (false)
