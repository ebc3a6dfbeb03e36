"""The page where people look at photos: `lorakit open PROJECT`. One view a file; nothing imports it but that verb."""
