"use client";

import { useState } from "react";
import { useRemover } from "u2net-remover/react";

export default function Page() {
  const { remover, error } = useRemover();
  const [cutout, setCutout] = useState();
  const show = async (file) => setCutout(URL.createObjectURL((await remover.cutout(file)).image));
  if (error) return <p role="alert">{error.message}</p>;
  return (
    <label>
      Photograph <input type="file" disabled={!remover} onChange={(event) => show(event.target.files[0])} />
      {cutout && <img src={cutout} alt="Without its background" />}
    </label>
  );
}
